import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from mmattn.ops import perceptron


@pytest.fixture(params=['one piece', 'many pieces'])
def pieces(request, monkeypatch):
    """Take all tokens at once, and four of them or one image at a time."""
    if request.param == 'many pieces':
        # The package has a function of the same name.
        module = sys.modules['mmattn.ops.perceptron']
        monkeypatch.setattr(module, '_MOST_HIDDEN', 4 * 9)


def random(shapes, dtype):
    """Results are about as large as inputs."""
    tensors = [torch.randn(shape, dtype=dtype) for shape in shapes]
    for weight in tensors[1::2]:
        weight /= weight[0].numel() ** 0.5
    return [x.requires_grad_() for x in tensors]


def inputs(dtype=torch.float32, with_bias=True, with_kernels=True):
    shapes = [(3, 2, 5, 6), (9, 6), (9,), (7, 9), (7,), (9, 1, 3, 3), (9,)]
    tensors = random(shapes if with_kernels else shapes[:5], dtype)
    if not with_bias:
        tensors[2::2] = [None] * len(tensors[2::2])
    return tensors


def define(x, weight1, bias1, weight2, bias2, kernels=None, kernel_bias=None):
    x = F.linear(x, weight1, bias1)
    if kernels is not None:
        local = F.conv2d(
            x.movedim(-1, 1), kernels, kernel_bias, padding=1, groups=9
        )
        x = x + local.movedim(1, -1)
    return F.linear(F.gelu(x), weight2, bias2)


def wide(args):
    return [None if x is None else x.double() for x in args]


@pytest.mark.usefixtures('pieces')
@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('with_kernels', [True, False])
def test_onednn_equals_the_definition(with_kernels, with_bias):
    args = inputs(with_bias=with_bias, with_kernels=with_kernels)
    leaves = [x for x in args if x is not None]
    want = define(*wide(args))
    upstream = torch.randn(want.shape)
    want_grads = torch.autograd.grad((want * upstream).sum(), leaves)
    out = perceptron(*args, impl='onednn')
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad((out * upstream).sum(), leaves)
    torch.testing.assert_close(grads, want_grads, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        out = perceptron(*args, impl='onednn')
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)


@pytest.fixture(params=[2**19, 2**11])
def few_bytes(request, monkeypatch):
    """Take all hidden channels at once, and 32 of them at a time."""
    # The package has a function of the name of the module.
    module = sys.modules['mmattn.ops.cpu_kernels.linear']
    monkeypatch.setattr(module, '_MOST_BYTES', request.param)
    # What threads share is right for one thread whatever it is.
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)


def whole_vectors(dtype, with_bias=True):
    """Channels in multiples of 8, not of more; tokens of no multiple."""
    shapes = [(2, 19, 15, 24), (104, 24), (104,), (40, 104), (40,)]
    tensors = random(shapes, dtype)
    if not with_bias:
        tensors[2::2] = [None] * len(tensors[2::2])
    return tensors


@pytest.mark.usefixtures('few_bytes')
@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_cpp_equals_the_definition(dtype, with_bias):
    args = whole_vectors(dtype, with_bias)
    want = define(*wide(args))
    error = 1e-5 if dtype == torch.float32 else 1e-12
    with torch.no_grad():
        out = perceptron(*args, impl='cpp')
        strided = args[0].transpose(0, 2)
        turned = perceptron(strided, *args[1:], impl='cpp').transpose(0, 2)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), want, rtol=error, atol=error)
    assert torch.equal(turned, out)  # a token does not see the others


@pytest.mark.usefixtures('few_bytes', 'pieces')
@pytest.mark.parametrize('needed', [(0,), (1, 2), (3,), (4,), (0, 1, 2, 3, 4)])
def test_gradients_of_cpp_equal_those_of_the_definition(needed):
    args = [x.detach() for x in whole_vectors(torch.float32)]
    for i in needed:
        args[i].requires_grad_()
    wanted = [args[i] for i in needed]
    want = define(*wide(args))
    upstream = torch.randn(want.shape)
    out = perceptron(*args, impl='cpp')
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad((out * upstream).sum(), wanted)
    want = torch.autograd.grad((want * upstream).sum(), wanted)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


def test_cpp_keeps_what_the_activation_takes(kept_bytes):
    args = whole_vectors(torch.float32)
    kept = kept_bytes(lambda: perceptron(*args, impl='cpp'), args[1:])
    assert kept == 4 * 2 * 19 * 15 * (24 + 104)


def test_cpp_passes_on_what_is_not_finite():
    args = [x.detach() for x in whole_vectors(torch.float32)]
    args[0][0, 0, 0, 3] = float('nan')
    out = perceptron(*args, impl='cpp')
    assert out[0, 0, 0].isnan().all()
    assert out.isnan().sum() == out.shape[-1]


def test_cpp_says_why_it_cannot_run():
    args = whole_vectors(torch.float64)
    with torch.no_grad(), pytest.raises(RuntimeError, match='multiples of 8'):
        perceptron(*inputs(with_kernels=False), impl='cpp')
    with torch.no_grad(), pytest.raises(RuntimeError, match='no convolution'):
        perceptron(*inputs(), impl='cpp')
    with torch.no_grad(), pytest.raises(RuntimeError, match=r'\(E, C\) with'):
        perceptron(*args[:3], args[3].t(), None, impl='cpp')
    with pytest.raises(RuntimeError, match='need oneDNN: it takes float32'):
        perceptron(*args, impl='cpp')


@pytest.mark.usefixtures('pieces')
@pytest.mark.parametrize(
    'needed', [(0,), (1,), (2,), (3,), (4,), (5,), (6,), (0, 4), (3, 6)]
)
def test_onednn_gives_the_gradients_that_are_asked_for(needed):
    args = [x.detach() for x in inputs()]
    for i in needed:
        args[i].requires_grad_()
    wanted = [args[i] for i in needed]
    got = torch.autograd.grad(perceptron(*args, impl='onednn').sum(), wanted)
    want = torch.autograd.grad(define(*args).sum(), wanted)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    perceptron(*args, impl='onednn').sum().backward()
    for i, x in enumerate(args):
        assert (x.grad is not None) == (i in needed)


CASES = [('onednn', inputs), ('cpp', whole_vectors)]


@pytest.mark.parametrize('impl, make', CASES)
def test_gradients_have_gradients(impl, make):
    args = make(torch.float32)

    def penalty(args, impl):
        out = perceptron(*args, impl=impl).square().sum()
        (grad,) = torch.autograd.grad(out, args[0], create_graph=True)
        return torch.autograd.grad(grad.square().sum(), args)

    exact = [x.detach().double().requires_grad_() for x in args]
    for got, want in zip(penalty(args, impl), penalty(exact, 'reference')):
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize('impl, make', CASES)
def test_a_second_backward_pass_finds_the_same(impl, make):
    args = make(torch.float32)
    out = perceptron(*args, impl=impl).square().sum()
    first = torch.autograd.grad(out, args, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(out, args), first)


@pytest.mark.usefixtures('pieces')
@pytest.mark.parametrize('impl, make', CASES)
def test_recomputed_it_finds_the_same(impl, make):
    args = make(torch.float32)
    outs = [
        perceptron(*args, impl=impl),
        checkpoint(perceptron, *args, impl=impl, use_reentrant=False),
    ]
    again, once = (torch.autograd.grad(x.square().sum(), args) for x in outs)
    torch.testing.assert_close(again, once)


@pytest.mark.usefixtures('pieces')
@pytest.mark.parametrize('with_kernels', [True, False])
def test_nothing_behind_the_activation_is_kept(kept_bytes, with_kernels):
    args = inputs(with_kernels=with_kernels)
    kept = kept_bytes(lambda: perceptron(*args, impl='onednn'), args[1:])
    hidden = 3 * 2 * 5 * 9 * (2 if with_kernels else 1)
    assert kept == 4 * (args[0].numel() + hidden)


@pytest.mark.usefixtures('pieces')
def test_inputs_of_any_strides_and_one_token():
    tokens, *parameters = (x.detach() for x in inputs(with_kernels=False))
    for x in (tokens.transpose(0, 2), tokens[0, 0, 0]):
        out = perceptron(x, *parameters, impl='onednn')
        want = define(x, *parameters)
        torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-5)


def test_auto_follows_dtype_and_autocast():
    args = inputs(torch.float64)
    torch.testing.assert_close(perceptron(*args), define(*args))
    with torch.autocast('cpu', torch.bfloat16):
        assert perceptron(*inputs()).dtype == torch.bfloat16
    empty = torch.zeros(0, 6)
    assert perceptron(empty, *inputs()[1:5]).shape == (0, 7)


def test_what_does_not_fit_is_named():
    x, *parameters = inputs(with_kernels=False)
    with pytest.raises(RuntimeError, match="cannot run impl 'onednn': it ta"):
        perceptron(x[..., :5], *parameters, impl='onednn')
    parameters[2] = parameters[2][:, :8]
    with pytest.raises(RuntimeError, match=r'it takes \(\*, C\), \(E, C\)'):
        perceptron(x, *parameters, impl='onednn')


@pytest.mark.usefixtures('compiler')
def test_compiled_equals_eager():
    args = inputs(torch.float64)
    compiled = torch.compile(perceptron, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*args), perceptron(*args))
