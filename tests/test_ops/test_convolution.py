import pytest
import torch
import torch.nn.functional as F

from mmattn.ops import depthwise_convolution, grouped_linear


def parameters(*shapes, dtype=torch.float32):
    tensors = [torch.randn(shape, dtype=dtype) for shape in shapes]
    return [x.requires_grad_() for x in tensors]


def check(call, plain, args, **tolerances):
    """The call, with and without gradients, against a float64 formula."""
    exact = plain(*(x.double() for x in args))
    upstream = torch.randn(exact.shape)
    want = torch.autograd.grad((exact * upstream).sum(), args)
    out = call(*args)
    got = torch.autograd.grad((out * upstream).sum(), args)
    with torch.inference_mode():
        still = call(*args)
    for result in (out, still):
        assert result.dtype == args[0].dtype
        torch.testing.assert_close(result.double(), exact, **tolerances)
    torch.testing.assert_close(got, want, **tolerances)


@pytest.mark.parametrize('with_skip', [True, False])
@pytest.mark.parametrize('with_gelu', [True, False])
@pytest.mark.parametrize('side', [1, 3, 5])
@pytest.mark.parametrize('impl', ['reference', 'onednn'])
def test_depthwise_convolution(impl, side, with_gelu, with_skip):
    args = parameters((2, 7, 4, 6), (6, 1, side, side), (6,))

    def call(x, weight, bias):
        return depthwise_convolution(
            x, weight, bias, with_skip, with_gelu, impl
        )

    def plain(x, weight, bias):
        out = torch.zeros_like(x)
        reach = side // 2
        wide = F.pad(x, (0, 0, *[reach] * 4))
        for i in range(side):
            for j in range(side):
                out = out + wide[:, i : i + 7, j : j + 4] * weight[:, 0, i, j]
        out = out + bias + (x if with_skip else 0)
        return F.gelu(out) if with_gelu else out

    check(call, plain, args, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('with_gelu', [True, False])
@pytest.mark.parametrize('impl', ['reference', 'dense'])
def test_grouped_linear(impl, with_gelu):
    args = parameters((2, 7, 4, 6), (12, 2), (12,))

    def call(x, weight, bias):
        return grouped_linear(x, weight, bias, 3, with_gelu, impl)

    def plain(x, weight, bias):
        parts = [
            part @ matrix.T
            for part, matrix in zip(x.split(2, dim=-1), weight.split(4))
        ]
        out = torch.cat(parts, dim=-1) + bias
        return F.gelu(out) if with_gelu else out

    check(call, plain, args, rtol=1e-5, atol=1e-5)


def test_float64_is_exact_by_default():
    x, weight, bias = parameters(
        (1, 5, 5, 4), (4, 1, 3, 3), (4,), dtype=torch.float64
    )
    out = depthwise_convolution(x, weight, bias, True, True)
    want = depthwise_convolution(x, weight, bias, True, True, 'reference')
    assert torch.equal(out, want)
    with pytest.raises(RuntimeError, match="impl 'onednn': it takes float32"):
        depthwise_convolution(x, weight, bias, impl='onednn')


@torch.no_grad()
def test_bias_of_any_strides():
    x, weight = torch.randn(2, 5, 6, 4), torch.randn(4, 1, 3, 3)
    for bias in (torch.randn(4, 2)[:, 1], torch.randn(1).expand(4)):
        args = (x, weight, bias, False, True)
        torch.testing.assert_close(
            depthwise_convolution(*args, impl='onednn'),
            depthwise_convolution(*args, impl='reference'),
            rtol=1e-5,
            atol=1e-5,
        )


@torch.no_grad()
def test_forward_gradients_follow_the_definition():
    x, weight = torch.randn(2, 5, 6, 4), torch.randn(4, 1, 3, 3)

    def call(impl):
        return torch.func.jvp(
            lambda x: depthwise_convolution(
                x, weight, None, with_gelu=True, impl=impl
            ),
            (x,),
            (x,),
        )

    torch.testing.assert_close(call('auto'), call('reference'))
