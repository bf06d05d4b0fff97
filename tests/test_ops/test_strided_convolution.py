import torch
import torch.nn.functional as F

from mmattn.ops import strided_convolution


def test_strided_convolution():
    """Against products with what each place of the result sees."""
    x = torch.randn(2, 3, 7, 10).double()
    weight, bias = torch.randn(5, 3, 3, 2).double(), torch.randn(5).double()
    out = strided_convolution(x, weight, bias, (2, 3), (1, 0))
    seen = F.unfold(x, (3, 2), padding=(1, 0), stride=(2, 3))
    want = weight.flatten(1) @ seen + bias[:, None]
    torch.testing.assert_close(out, want.view(2, 5, 4, 3))
