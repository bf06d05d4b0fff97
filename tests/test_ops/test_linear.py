import sys

import pytest
import torch
import torch.nn.functional as F

from mmattn.ops import linear


def inputs(dtype=torch.float32, with_bias=True):
    x = torch.randn(2, 5, 7, 12, dtype=dtype)
    weight, bias = torch.randn(9, 12, dtype=dtype), torch.randn(9, dtype=dtype)
    tensors = (x, weight, bias) if with_bias else (x, weight)
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('with_gelu', [True, False])
def test_onednn_equals_the_definition(with_gelu, with_bias):
    args = inputs(with_bias=with_bias)
    exact = F.linear(*(x.double() for x in args))
    exact = F.gelu(exact) if with_gelu else exact
    upstream = torch.randn(exact.shape)
    want = torch.autograd.grad((exact * upstream).sum(), args)
    bias = args[2] if with_bias else None
    out = linear(*args[:2], bias, with_gelu, 'onednn')
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad((out * upstream).sum(), args)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        fused = linear(*args[:2], bias, with_gelu, 'onednn')
    torch.testing.assert_close(fused.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('shape', [(400, 384), (384, 400), (384, 384)])
def test_gradients_of_wide_weights(shape):
    E, C = shape
    x, grad = torch.randn(6, C), torch.randn(6, E)
    weight = torch.randn(E, C, requires_grad=True)
    linear(x, weight, impl='onednn').backward(grad)
    want = grad.double().t() @ x.double()
    torch.testing.assert_close(
        weight.grad.double(), want, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_onednn_gives_the_gradients_that_are_asked_for(needed):
    args = [x.detach() for x in inputs()]
    for i in needed:
        args[i].requires_grad_()
    linear(*args, impl='onednn').sum().backward()
    for i, x in enumerate(args):
        assert (x.grad is not None) == (i in needed)


def test_gradients_have_gradients():
    args = inputs()

    def penalty(args, impl):
        out = linear(*args, True, impl).square().sum()
        (grad,) = torch.autograd.grad(out, args[0], create_graph=True)
        return torch.autograd.grad(grad.square().sum(), args)

    exact = [x.detach().double().requires_grad_() for x in args]
    for got, want in zip(penalty(args, 'onednn'), penalty(exact, 'auto')):
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_auto_follows_dtype_and_autocast():
    x, weight, bias = inputs(torch.float64)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    with torch.autocast('cpu', torch.bfloat16):
        assert linear(*inputs()).dtype == torch.bfloat16
    assert linear(torch.zeros(0, 12), *inputs()[1:]).shape == (0, 9)


@pytest.mark.parametrize(
    'x, reason',
    [
        (torch.zeros(2, 12, dtype=torch.float64), 'it takes float32, got'),
        (torch.zeros(0, 12), 'it takes at least one value, got (0, 12)'),
        (
            torch.zeros(2, 12, device='meta'),
            "it runs on a CPU, got ['meta', 'cpu'",
        ),
    ],
)
def test_onednn_says_why_it_cannot_run(x, reason):
    with pytest.raises(RuntimeError) as error:
        linear(x, *inputs()[1:], impl='onednn')
    assert str(error.value).startswith(
        f"linear cannot run impl 'onednn': {reason}"
    )


@pytest.mark.parametrize('size', [2**19, 2**12])
@pytest.mark.parametrize('with_gelu', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_cpp_equals_the_definition(dtype, with_gelu, size, monkeypatch):
    # The package has a function of the name of the module.
    module = sys.modules['mmattn.ops.cpu_kernels.linear']
    monkeypatch.setattr(module, '_MOST_BYTES', size)
    # What threads share is right for one thread whatever it is.
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    x = torch.randn(7, 3, 50, 24, dtype=dtype).transpose(0, 2)
    weight = torch.randn(104, 24, dtype=dtype)
    error = 1e-5 if dtype == torch.float32 else 1e-12
    for bias in (torch.randn(104, dtype=dtype), None):
        args = (x, weight, bias)
        want = F.linear(*(y if y is None else y.double() for y in args))
        want = F.gelu(want) if with_gelu else want
        out = linear(*args, with_gelu, impl='cpp')
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), want, rtol=error, atol=error)


@pytest.mark.parametrize(
    'shape, reason',
    [
        ((511, 16), r'at least 512 tokens, got \(511, 16\)'),
        ((512, 12), 'channels in multiples of 8'),
        ((512, 24), r'weights \(E, C\) with C = 24'),
    ],
)
def test_cpp_says_why_it_cannot_run(shape, reason):
    with pytest.raises(RuntimeError, match=f'cannot run impl .cpp.*{reason}'):
        linear(torch.zeros(shape), torch.zeros(16, 16), impl='cpp')


@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize('with_gelu', [True, False])
def test_gradients_of_cpp_equal_those_of_the_definition(with_gelu, needed):
    args = [torch.randn(600, 24), torch.randn(16, 24) / 5, torch.randn(16)]
    for i in needed:
        args[i].requires_grad_()
    wanted = [args[i] for i in needed]
    exact = F.linear(*(y.double() for y in args))
    exact = F.gelu(exact) if with_gelu else exact
    upstream = torch.randn(exact.shape)
    out = linear(*args, with_gelu, impl='cpp')
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad((out * upstream).sum(), wanted)
    want = torch.autograd.grad((exact * upstream).sum(), wanted)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


def test_gradients_of_cpp_need_onednn():
    x = torch.zeros(512, 16, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match='need oneDNN: it takes float32'):
        linear(x, x.detach()[:16], impl='cpp')


@pytest.mark.usefixtures('compiler')
def test_compiled_equals_eager():
    args = inputs(torch.float64)
    compiled = torch.compile(linear, fullgraph=True, backend='aot_eager')
    assert torch.equal(compiled(*args), linear(*args))


def test_bias_and_inputs_of_any_strides():
    x, weight, _ = (x.detach() for x in inputs())
    for bias in (torch.randn(9, 2)[:, 1], torch.randn(1).expand(9)):
        with torch.no_grad():
            out = linear(x.transpose(0, 2), weight, bias, impl='onednn')
        want = F.linear(x.transpose(0, 2), weight, bias)
        torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-5)


def test_one_token_without_leading_axes():
    x, weight, bias = inputs()
    args = (x[0, 0, 0], weight, bias)
    got = torch.autograd.grad(linear(*args, impl='onednn').sum(), args)
    want = torch.autograd.grad(F.linear(*args).sum(), args)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('sparse', [False, True])
def test_auto_leaves_other_weights_to_the_definition(sparse):
    class Marked(torch.Tensor):
        pass

    # As many as all implementations take.
    x, weight, bias = torch.randn(512, 16), torch.randn(8, 16), torch.randn(8)
    other = weight.to_sparse() if sparse else weight.as_subclass(Marked)
    bias = None if sparse else bias
    want = F.linear(x, weight, bias)
    out = linear(x, other, bias)
    torch.testing.assert_close(
        torch.as_tensor(out).as_subclass(torch.Tensor),
        want,
        rtol=1e-5,
        atol=1e-5,
    )
    reason = 'dense tensors' if sparse else 'plain tensors'
    with pytest.raises(RuntimeError, match=f'it takes {reason}, got'):
        linear(x, other, bias, impl='onednn')


def test_what_does_not_fit_is_named():
    x, weight, bias = inputs()
    with pytest.raises(RuntimeError, match=r'it takes \(\*, C\), \(E, C\)'):
        linear(x[..., :5], weight, bias, impl='onednn')
    with pytest.raises(RuntimeError, match='cannot be multiplied'):
        linear(x[..., :5], weight, bias)


def test_onednn_can_be_turned_off(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, 'enabled', False)
    with pytest.raises(RuntimeError, match='mkldnn.enabled is False'):
        linear(*inputs(), impl='onednn')


def test_transforms_follow_the_definition():
    x, weight, bias = (x.detach() for x in inputs())

    def call(x):
        return linear(x, weight, bias, with_gelu=True)

    graph = torch.fx.symbolic_trace(call)
    torch.testing.assert_close(graph(x), call(x))

    _, tangent = torch.func.jvp(call, (x,), (x,))
    exact = torch.func.jvp(
        lambda x: F.gelu(F.linear(x, weight, bias)), (x,), (x,)
    )[1]
    torch.testing.assert_close(tangent, exact)
    torch.testing.assert_close(torch.vmap(call)(x), call(x))
    traced = torch.jit.trace(call, (x,), check_trace=False)
    torch.testing.assert_close(traced(x[:1]), call(x[:1]))
