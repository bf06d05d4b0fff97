import pytest
import torch
from torch import nn

from mmattn.layers import fold_batch_norm


@pytest.mark.parametrize('with_bias', [True, False])
def test_equals_the_norm_behind_the_convolution(with_bias):
    conv = nn.Conv2d(3, 5, 3, bias=with_bias).double()
    norm = nn.BatchNorm2d(5).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(4, 3, 6, 7).double()
    norm(conv(x))  # so that the statistics are not those of the start
    norm.eval()
    parameters = [*conv.parameters(), *norm.parameters()]
    want = norm(conv(x))
    weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
    out = nn.functional.conv2d(x, weight, bias)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), parameters),
        torch.autograd.grad(want.square().sum(), parameters),
        rtol=1e-10,
        atol=1e-10,
    )
