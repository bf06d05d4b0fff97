"""Backbones under torch.compile: whole graphs, for one size and for many."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mmattn.registry import MODELS

pytestmark = pytest.mark.usefixtures('compiler')

# Windows that fill the map and that do not, maps smaller than a window or a
# stripe, one cluster and many, sides that nothing divides.
SIZES = [(64, 96), (96, 64), (80, 112), (101, 147), (224, 224)]


class Compiled:
    """A model and its compiled self, which may be compiled again."""

    def __init__(self, name, arch, training=False, backend='eager', **options):
        torch._dynamo.reset()
        stages = options.pop('stages', 4)
        self.model = MODELS.get(name)(
            arch=arch, drop_path_rate=0.0, out_indices=range(stages)
        ).train(training)
        self.counter = CompileCounterWithBackend(backend)
        self.compiled = torch.compile(
            self.model, fullgraph=True, backend=self.counter, **options
        )

    @property
    def times(self):
        return self.counter.frame_count

    def check(self, *size, batch=2, mark=()):
        """Results, in training also gradients, are those of the model."""
        found, want = (
            self.results(model, *size, batch=batch, mark=mark)
            for model in (self.compiled, self.model)
        )
        for a, b in zip(found, want, strict=True):
            atol = 1e-4 * max(b.abs().max().item(), 1)
            torch.testing.assert_close(a, b, rtol=0, atol=atol)

    def results(self, model, *size, batch, mark):
        # The same for both, and no ties to be broken by rounding.
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, *size, generator=generator)
        for axis in mark:
            torch._dynamo.mark_dynamic(images, axis)
        if not self.model.training:
            with torch.no_grad():
                return model(images)
        outs = model(images)
        self.model.zero_grad()
        sum(out.square().mean() for out in outs).backward()
        return [*outs, *(p.grad for p in self.model.parameters())]


def test_few_graphs_for_all_sizes(nano):
    """The first two stages, which meet all that the others meet.

    Where windows divide both sides of a map, one side or none, PyTorch
    compiles apart; operators hide all else that depends on sizes.
    """
    model = Compiled(*nano, dynamic=True, stages=2)
    for size in SIZES:
        model.check(*size)
    swin = nano[0] in ('AttentionPyramid', 'BOATSwin')
    assert model.times <= (3 if swin else 1)


def test_activation_checkpointing():
    """Batch normalization counts a batch once."""
    torch._dynamo.reset()
    model = MODELS.get('SMT')(
        'nano', drop_path_rate=0.0, out_indices=[0], with_cp=True
    ).train()
    same = copy.deepcopy(model)
    compiled = torch.compile(
        model, fullgraph=True, dynamic=True, backend='aot_eager'
    )
    images = torch.randn(2, 3, 64, 96)
    for each in (compiled, same):
        each(images)[0].square().mean().backward()
    torch.testing.assert_close(model.state_dict(), same.state_dict())
    grads = [[p.grad for p in each.parameters()] for each in (model, same)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-5)


@pytest.mark.slow  # most of a minute each
def test_training_on_all_sizes(nano):
    model = Compiled(*nano, True, 'aot_eager', dynamic=True)
    for size in SIZES:
        model.check(*size)


@pytest.mark.slow
def test_sizes_and_batches_that_are_marked_dynamic(nano):
    model = Compiled(*nano)
    for batch, size in zip((2, 3, 5, 2, 4), SIZES):
        model.check(*size, batch=batch, mark=(0, 2, 3))


@pytest.mark.slow  # minutes each: C++ is compiled
@pytest.mark.timeout(1800)
def test_inductor(nano):
    model = Compiled(*nano, True, 'inductor', dynamic=False, stages=2)
    model.check(*SIZES[0])
    model.model.eval()
    model.check(*SIZES[0])
