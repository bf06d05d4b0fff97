import pytest
import torch
import torch.nn.functional as F

from mmattn.ops import depthwise_convolution


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
@pytest.mark.parametrize('impl', ['reference', 'cpp', 'onednn'])
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


@pytest.mark.parametrize('B, H, W, C', [(1, 1, 1, 1), (2, 9, 8, 17)])
@pytest.mark.parametrize('side', [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize('with_gelu', [True, False])
@pytest.mark.parametrize('threads', [1, 3])
def test_cpp_equals_the_definition(side, with_gelu, threads, B, H, W, C):
    # Maps smaller than the kernels, channels that fill no vector, threads
    # that share an image; some channels of a wider map.
    tensors = parameters(
        (B, H, W, 2 * C), (C, 1, side, side), (C,), dtype=torch.float64
    )

    def call(impl):
        wide, weight, bias = tensors
        out = depthwise_convolution(
            wide[..., C:], weight, bias, True, with_gelu, impl
        )
        upstream = torch.linspace(-1, 2, out.numel()).double().view(out.shape)
        return out, *torch.autograd.grad(out, tensors, upstream)

    want = call('reference')
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = call('cpp')
        with torch.no_grad():
            still = depthwise_convolution(
                tensors[0][..., C:], *tensors[1:], True, with_gelu, 'cpp'
            )
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(still, want[0])


@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (0, 2), (1, 2)])
@pytest.mark.parametrize('with_gelu', [True, False])
def test_cpp_gives_the_gradients_that_are_asked_for(with_gelu, needed):
    tensors = [
        torch.randn(shape).double().requires_grad_(i in needed)
        for i, shape in enumerate([(2, 6, 9, 5), (5, 1, 3, 3), (5,)])
    ]

    def gradients(impl):
        out = depthwise_convolution(*tensors, False, with_gelu, impl)
        out.square().sum().backward()
        found = [x.grad for x in tensors]
        for x in tensors:
            x.grad = None
        return found

    got, want = gradients('cpp'), gradients('reference')
    assert [x is None for x in got] == [i not in needed for i in range(3)]
    torch.testing.assert_close(
        *([got[i] for i in needed] for got in (got, want))
    )


@pytest.mark.parametrize('change', ['transposed', 'rows', 'expanded'])
def test_cpp_takes_maps_of_any_strides(change):
    x, weight = torch.randn(2, 8, 6, 5), torch.randn(5, 1, 3, 3)
    x = {
        'transposed': x.transpose(1, 2),
        'rows': x[:, ::2],
        'expanded': x[:1, :1].expand(2, 8, 6, 5),
    }[change]
    torch.testing.assert_close(
        depthwise_convolution(x, weight, impl='cpp'),
        depthwise_convolution(x, weight, impl='reference'),
    )


def test_gelu_of_cpp_is_as_precise_as_that_of_pytorch():
    x = torch.cat([torch.linspace(-20, 20, 40001), torch.tensor([-1e9, 1e9])])
    x.requires_grad_()
    one = torch.ones(1, 1, 1, 1)
    out = depthwise_convolution(
        x.view(1, 1, -1, 1), one, with_gelu=True, impl='cpp'
    ).flatten()
    exact = F.gelu(x.double())
    # Off by no more than the distribution function is.
    assert ((out - exact).abs() <= 3e-7 * x.abs()).all()
    assert torch.equal(out[x > 6], x[x > 6]) and not out[x < -6].any()
    (slope,) = torch.autograd.grad(out.sum(), x)
    (want,) = torch.autograd.grad(exact.sum(), x)
    torch.testing.assert_close(slope, want, rtol=0, atol=5e-7)


def test_no_image_gives_none():
    x, weight, bias = parameters((0, 5, 5, 4), (4, 1, 3, 3), (4,))
    assert depthwise_convolution(x, weight, bias).shape == x.shape
    with pytest.raises(
        RuntimeError, match='cpp.: it takes at least one value'
    ):
        depthwise_convolution(x, weight, bias, impl='cpp')


def test_cpp_refuses_autocast():
    x, weight = parameters((1, 5, 5, 4), (4, 1, 3, 3))
    with (
        torch.autocast('cpu', torch.bfloat16),
        pytest.raises(RuntimeError, match='cpp.: autocast casts'),
    ):
        depthwise_convolution(x, weight, impl='cpp')


def test_gradients_of_cpp_have_gradients():
    tensors = parameters((1, 3, 4, 2), (2, 1, 3, 3), (2,), dtype=torch.float64)

    def call(*tensors):
        return depthwise_convolution(*tensors, True, True, 'cpp')

    assert torch.autograd.gradgradcheck(call, tensors)


def test_float64_is_exact_by_default():
    x, weight, bias = parameters(
        (1, 5, 5, 4), (4, 1, 3, 3), (4,), dtype=torch.float64
    )
    out = depthwise_convolution(x, weight, bias, True, True)
    want = depthwise_convolution(x, weight, bias, True, True, 'reference')
    torch.testing.assert_close(out, want, rtol=1e-14, atol=1e-14)
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


@pytest.mark.parametrize('impl', ['reference', 'cpp', 'onednn'])
@pytest.mark.parametrize(
    'weight, bias',
    [
        ((8, 1, 3, 5), None),
        ((8, 1, 4, 4), None),
        ((4, 1, 3, 3), None),
        ((8, 3, 3), None),
        ((8, 1, 3, 3), (1,)),
    ],
)
def test_kernels_that_do_not_fit(weight, bias, impl):
    bias = None if bias is None else torch.zeros(bias)
    with pytest.raises(ValueError, match=r'a weight \(C, 1, s, s\) of odd s'):
        depthwise_convolution(
            torch.zeros(1, 5, 5, 8), torch.zeros(weight), bias, impl=impl
        )
