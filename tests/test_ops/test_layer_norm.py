import pytest
import torch
import torch.nn.functional as F

from mmattn.ops import layer_norm


def inputs(*shape, dtype=torch.float32, with_affine=True):
    x = 3 * torch.randn(shape, dtype=dtype) + 1
    if not with_affine:
        return [x.requires_grad_()]
    weight, bias = torch.randn(2, shape[-1], dtype=dtype)
    return [y.clone().requires_grad_() for y in (x, weight, bias)]


@pytest.mark.parametrize('with_affine', [True, False])
@pytest.mark.parametrize('channels', [8, 24, 64, 264])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_cpp_equals_the_definition(dtype, channels, with_affine):
    args = inputs(3, 5, channels, dtype=dtype, with_affine=with_affine)
    exact = [x.detach().double().requires_grad_() for x in args]
    want = layer_norm(*exact, eps=1e-3, impl='reference')
    upstream = torch.randn(want.shape, dtype=dtype)
    out = layer_norm(*args, eps=1e-3, impl='cpp')
    assert out.dtype == dtype
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    grads = torch.autograd.grad(out, args, upstream)
    exact_grads = torch.autograd.grad(want, exact, upstream.double())
    for a, b in zip((out, *grads), (want, *exact_grads)):
        assert (a - b).abs().max() <= rtol * b.abs().max()
    with torch.no_grad():
        assert torch.equal(layer_norm(*args, eps=1e-3, impl='cpp'), out)


def test_cpp_keeps_precision_far_from_zero():
    x = torch.randn(4, 64) + 1000
    want = F.layer_norm(x.double(), (64,))
    torch.testing.assert_close(
        layer_norm(x, impl='cpp').double(), want, rtol=0, atol=2e-4
    )


@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (1, 2)])
def test_cpp_gives_the_gradients_that_are_asked_for(needed):
    args = [x.detach() for x in inputs(4, 24)]
    for i in needed:
        args[i].requires_grad_()
    layer_norm(*args, impl='cpp').sum().backward()
    for i, x in enumerate(args):
        assert (x.grad is not None) == (i in needed)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_cpp_takes_any_strides_and_gradients_have_gradients(dtype):
    x = torch.randn(2, 24, 3, 5, dtype=dtype).permute(0, 3, 2, 1)
    weight = torch.randn(1, dtype=dtype).expand(24)
    bias = torch.randn(24, 2, dtype=dtype)[:, 0]
    upstream = torch.randn(24, 2 * 5 * 3, dtype=dtype).t().view(2, 5, 3, 24)
    args = [y.requires_grad_() for y in (x, weight, bias)]
    exact = [y.detach().double().requires_grad_() for y in args]

    def gradients(args, impl):
        out = layer_norm(*args, eps=1e-2, impl=impl)
        once = torch.autograd.grad(
            out, args, upstream.to(out.dtype), retain_graph=True
        )
        (grad,) = torch.autograd.grad(
            out.square().sum(), args[0], create_graph=True
        )
        return *once, *torch.autograd.grad(grad.square().sum(), args[:2])

    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    found, want = gradients(args, 'cpp'), gradients(exact, 'reference')
    for a, b in zip(found, want):
        assert (a - b).abs().max() <= rtol * b.abs().max()


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_row(bad):
    x = torch.randn(3, 24)
    x[1, 5] = bad
    out = layer_norm(x, impl='cpp')
    assert out[1].isnan().any()
    assert out[[0, 2]].isfinite().all()


@pytest.mark.parametrize('rows', [2, 50])
def test_cpp_with_several_threads(rows):
    args = inputs(rows, 24)
    upstream = torch.randn(rows, 24)
    want = torch.autograd.grad(layer_norm(*args, impl='cpp'), args, upstream)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        got = torch.autograd.grad(
            layer_norm(*args, impl='cpp'), args, upstream
        )
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_auto_leaves_the_rest_to_the_definition():
    assert layer_norm(torch.zeros(0, 24)).shape == (0, 24)
    half = torch.randn(2, 24).bfloat16()
    assert torch.equal(layer_norm(half), F.layer_norm(half, (24,)))
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(layer_norm(half), F.layer_norm(half, (24,)))
        wide = half.float()
        assert torch.equal(layer_norm(wide), layer_norm(wide, impl='cpp'))
        torch.testing.assert_close(layer_norm(wide), F.layer_norm(wide, (24,)))
    odd = torch.randn(2, 9)
    assert torch.equal(layer_norm(odd), F.layer_norm(odd, (9,)))
    with pytest.raises(RuntimeError, match='it takes float32 or float64'):
        layer_norm(half, impl='cpp')
    with pytest.raises(RuntimeError, match=r'multiples of 8, got \(2, 9\)'):
        layer_norm(odd, impl='cpp')


@pytest.mark.parametrize('impl', ['reference', 'cpp'])
@pytest.mark.parametrize('shape', [(2, 24), ()])
def test_shapes_that_do_not_fit(shape, impl):
    with pytest.raises(ValueError, match=r'expects x \(\*, C\), and weight'):
        layer_norm(torch.zeros(shape), torch.zeros(25), impl=impl)


@pytest.mark.usefixtures('compiler')
def test_compiled_equals_eager():
    args = inputs(4, 24, dtype=torch.float64)
    compiled = torch.compile(layer_norm, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*args), layer_norm(*args))
