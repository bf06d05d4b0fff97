import pytest
import torch
import torch.nn.functional as F

from mmattn.ops import grouped_linear


@pytest.mark.parametrize('with_gelu', [True, False])
@pytest.mark.parametrize('impl', ['reference', 'dense'])
def test_each_group_has_a_matrix_of_its_own(impl, with_gelu):
    shapes = (2, 7, 4, 6), (12, 2), (12,)
    args = [torch.randn(shape, requires_grad=True) for shape in shapes]
    x, weight, bias = (arg.double() for arg in args)
    parts = [
        part @ matrix.T
        for part, matrix in zip(x.split(2, dim=-1), weight.split(4))
    ]
    want = torch.cat(parts, dim=-1) + bias
    want = F.gelu(want) if with_gelu else want
    upstream = torch.randn(want.shape)
    want_grads = torch.autograd.grad((want * upstream).sum(), args)
    out = grouped_linear(*args, 3, with_gelu, impl)
    grads = torch.autograd.grad((out * upstream).sum(), args)
    with torch.inference_mode():
        still = grouped_linear(*args, 3, with_gelu, impl)
    for result in (out, still):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads, want_grads, rtol=1e-5, atol=1e-5)
