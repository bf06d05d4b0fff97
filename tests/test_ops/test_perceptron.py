import sys

import pytest
import torch
import torch.nn.functional as F

from mmattn.ops import perceptron


@pytest.fixture(params=['one piece', 'many pieces'])
def pieces(request, monkeypatch):
    """Take all tokens at once, and four at a time."""
    if request.param == 'many pieces':
        # The package has a function of the same name.
        module = sys.modules['mmattn.ops.perceptron']
        monkeypatch.setattr(module, '_MOST_HIDDEN', 4 * 9)


def inputs(dtype=torch.float32, with_bias=True):
    shapes = [(2, 3, 5, 6), (9, 6), (9,), (7, 9), (7,)]
    tensors = [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]
    if not with_bias:
        tensors[2] = tensors[4] = None
    return tensors


def define(x, weight1, bias1, weight2, bias2):
    return F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2)


def wide(args):
    return [None if x is None else x.double() for x in args]


@pytest.mark.usefixtures('pieces')
@pytest.mark.parametrize('with_bias', [True, False])
def test_onednn_equals_the_definition(with_bias):
    args = inputs(with_bias=with_bias)
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


@pytest.mark.usefixtures('pieces')
@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (3,), (4,), (0, 4)])
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


def test_gradients_have_gradients():
    args = inputs()

    def penalty(impl):
        out = perceptron(*args, impl=impl).square().sum()
        (grad,) = torch.autograd.grad(out, args[0], create_graph=True)
        # Adding a bias at the end changes no gradient of a gradient.
        return torch.autograd.grad(grad.square().sum(), args[:4])

    torch.testing.assert_close(
        penalty('onednn'), penalty('reference'), rtol=1e-4, atol=1e-2
    )


def test_a_second_backward_pass_finds_the_same():
    args = inputs()
    out = perceptron(*args, impl='onednn').square().sum()
    first = torch.autograd.grad(out, args, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(out, args), first)


def test_hidden_values_are_kept_once(kept_bytes):
    args = inputs()
    x, hidden = args[0].numel(), 2 * 3 * 5 * 9
    kept = kept_bytes(lambda: perceptron(*args, impl='onednn'), args[1:])
    assert kept == 4 * (x + hidden)


@pytest.mark.usefixtures('pieces')
def test_inputs_of_any_strides_and_one_token():
    tokens, *parameters = (x.detach() for x in inputs())
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
    assert perceptron(empty, *inputs()[1:]).shape == (0, 7)


def test_what_does_not_fit_is_named():
    x, *parameters = inputs()
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
