import pytest
import torch

from mmattn.ops import custom_op
from mmattn.ops.custom_op import define_kernel, define_operator

ARGUMENTS = 'Tensor x, float factor, Tensor? y'


def forward(x, factor, y):
    out = x.exp() * factor
    return [out if y is None else out + y * y, x.exp()]


def backward(grad, kept, wanted, x, factor, y):
    (exponential,) = kept
    assert grad.is_contiguous()
    return [
        grad * exponential * factor if wanted[0] else None,
        2 * grad * y if wanted[1] else None,
    ]


def empty(x, factor, y):
    return [torch.empty_like(x), torch.empty_like(x)]


def reference(*args):
    return forward(*args)[0]


def define(name):
    return define_kernel(name, ARGUMENTS, forward, backward, empty, reference)


@pytest.fixture(scope='module')
def kernel():
    return define('square_of_a_test')


def inputs():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    return x, torch.randn(3, 4, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize('entry', ['function', 'operator'])
def test_both_entries_have_the_gradients_of_the_kernel(kernel, entry):
    call = getattr(kernel, entry)
    if call is None:
        pytest.skip('needs torch 2.4')
    x, y = inputs()
    assert torch.autograd.gradcheck(lambda x, y: call(x, 2.0, y), (x, y))
    assert torch.autograd.gradcheck(lambda x: call(x, 2.0, None), (x,))
    # A gradient that is one number, or one of the two.
    (grad,) = torch.autograd.grad(call(x, 2.0, y).sum(), y)
    torch.testing.assert_close(grad, 2 * y)


def test_function_has_gradients_of_gradients(kernel):
    x, y = inputs()
    assert torch.autograd.gradgradcheck(
        lambda x, y: kernel.function(x, 2.0, y), (x, y)
    )


def test_nothing_is_kept_without_gradients(kernel):
    x, y = inputs()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
        assert not kernel.function(x.detach(), 2.0, None).requires_grad
        with torch.no_grad():
            assert not kernel.function(x, 2.0, y).requires_grad
    assert not kept


def test_operator_keeps_the_rules_of_torch_library(kernel):
    if not hasattr(torch.library, 'opcheck'):
        pytest.skip('needs torch 2.4')
    operator = torch.ops.mmattn.square_of_a_test.default
    x, y = inputs()
    torch.library.opcheck(operator, (x, 2.0, y))
    torch.library.opcheck(operator, (x.detach(), 2.0, None))


def test_without_custom_operators(monkeypatch):
    monkeypatch.setattr(custom_op, '_HAS_CUSTOM_OPS', False)
    kernel = define('none')
    x, y = inputs()
    assert kernel.operator is None
    assert kernel.function(x, 2.0, y).requires_grad
    assert define_operator('none', 'Tensor x', abs, abs) is None
