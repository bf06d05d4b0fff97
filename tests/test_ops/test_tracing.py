import runpy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmattn.ops import tracing


def test_compiling_is_not_running():
    def mark(x):
        return x + 1 if tracing.is_compiling() else x

    x = torch.zeros(3)
    compiled = torch.compile(mark, fullgraph=True, backend='aot_eager')
    assert torch.equal(mark(x), x)
    assert torch.equal(compiled(x), x + 1)


def test_torch_before_2_3(monkeypatch):
    import torch._dynamo

    monkeypatch.delattr(torch.compiler, 'is_compiling', raising=False)
    module = runpy.run_path(tracing.__file__)
    assert module['is_compiling'] is torch._dynamo.is_compiling


class Layer(torch.nn.Module):
    def __init__(self, find):
        super().__init__()
        self.find = find

    def forward(self, x):
        return x + 1 if self.find() else x


@pytest.mark.usefixtures('compiler')
@pytest.mark.parametrize('strict', [False, True])
def test_exporting_is_not_compiling(strict):
    layer, x = Layer(tracing.is_exporting), torch.zeros(3)
    assert not tracing.is_exporting()
    compiled = torch.compile(layer, fullgraph=True, backend='eager')
    assert torch.equal(compiled(x), x)
    program = torch.export.export(layer, (x,), strict=strict)
    assert torch.equal(program.module()(x), x + 1)


def test_transforms_tracers_and_modes():
    x = torch.zeros(3)
    layer = Layer(tracing.is_observed)
    assert torch.equal(layer(x), x)
    assert torch.equal(torch.vmap(layer)(x), x + 1)
    assert torch.equal(torch.func.jvp(layer, (x,), (x,))[0], x + 1)
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    assert torch.equal(traced(x), x + 1)
    with torch.autograd.forward_ad.dual_level():
        assert tracing.in_functorch()
    assert not tracing.in_dispatch_mode()
    with FlopCounterMode(display=False):
        assert tracing.in_dispatch_mode()


@pytest.mark.usefixtures('compiler_for_all_sizes')
def test_dynamic_shapes():
    x = torch.zeros(2, 3, 4)
    assert not tracing.has_dynamic_shape(x)
    for axis, want in ((0, False), (1, True)):
        torch._dynamo.reset()
        found = []

        def mark(x, found=found):
            found.append(tracing.has_dynamic_shape(x))
            return x

        marked = x.clone()
        torch._dynamo.mark_dynamic(marked, axis)
        torch.compile(mark, fullgraph=True, backend='eager')(marked)
        assert found == [want]


def test_gradients_that_are_needed():
    x, y = torch.zeros(1), torch.zeros(1, requires_grad=True)
    assert tracing.needs_grad(x, None, y)
    assert not tracing.needs_grad(x, None)
    with torch.no_grad():
        assert not tracing.needs_grad(y)


def test_autocast_is_switched_off():
    x = torch.ones(2, 2)
    with torch.autocast('cpu', torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with tracing.without_autocast(x):
            assert (x @ x).dtype == torch.float32
