"""Backbones under torch.compile: one graph, for one size and for many."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend

from mmattn.registry import MODELS

pytestmark = pytest.mark.usefixtures('compiler_for_all_sizes')

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


def test_one_graph_for_all_sizes(nano):
    """The first two stages, which meet all that the others meet."""
    model = Compiled(*nano, dynamic=True, stages=2)
    for size in SIZES:
        model.check(*size)
    assert model.times == 1


@pytest.mark.slow
def test_one_graph_of_what_pools():
    """Also for odd sides, which PyTorch pools otherwise."""
    model = Compiled('PerspectiveEncoder', 'nano', dynamic=True, stages=5)
    for size in SIZES[:4]:
        model.check(*size)
    assert model.times == 1


def test_blocks_that_are_computed_again():
    """Batch normalisation counts a batch once."""
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


def pooled(x, weight):
    return F.linear(F.avg_pool2d(x, 4).permute(0, 2, 3, 1), weight)


def test_pytorch_compiles_a_size_of_one_by_itself():
    """What no model can mend: see docs/implementations.md."""
    weight = torch.randn(5, 3)
    for first, second in [((2, 8), (1, 8)), ((2, 8), (2, 4))]:
        torch._dynamo.reset()
        counter = CompileCounterWithBackend('eager')
        compiled = torch.compile(
            pooled, fullgraph=True, dynamic=True, backend=counter
        )
        for batch, side in (first, (3, 12), second):
            compiled(torch.randn(batch, 3, side, side), weight)
        assert counter.frame_count == 2


@pytest.mark.slow  # most of a minute each
def test_one_graph_trains_on_all_sizes(nano):
    model = Compiled(*nano, True, 'aot_eager', dynamic=True)
    model.check(*SIZES[0])
    # The first compilation may begin anew, on what it has found out.
    times = model.times
    for size in SIZES[1:]:
        model.check(*size)
    assert model.times == times


@pytest.mark.slow
def test_the_second_size_is_the_last_that_is_compiled(nano):
    """Without options: first for one size, then for all."""
    model = Compiled(*nano)
    for size in [SIZES[0], SIZES[3], *SIZES]:
        model.check(*size)
    assert model.times == 2


@pytest.mark.slow
def test_sizes_of_which_the_user_says_that_they_vary(nano):
    model = Compiled(*nano)
    for batch, size in zip((2, 3, 5, 2, 4), SIZES):
        model.check(*size, batch=batch, mark=(0, 2, 3))
    assert model.times == 1


@pytest.mark.slow
def test_batches_of_one_size(nano):
    model = Compiled(*nano)
    for batch in (2, 3, 17):
        model.check(64, 96, batch=batch, mark=(0,))
    assert model.times == 1


@pytest.mark.slow  # minutes each: C++ is compiled
@pytest.mark.timeout(1800)
def test_inductor(nano):
    model = Compiled(*nano, True, 'inductor', dynamic=False, stages=2)
    model.check(*SIZES[0])
    model.model.eval()
    model.check(*SIZES[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('training', [True, False])
def test_inductor_compiles_once_for_all_sizes(nano, training):
    model = Compiled(*nano, training, 'inductor', dynamic=True, stages=2)
    # Of so many images that batch normalisation has no small sums.
    model.check(*SIZES[0], batch=3)
    # As above: the first compilation may begin anew.
    times = model.times
    for size in SIZES[1:4]:
        model.check(*size, batch=3)
    assert model.times == times


@pytest.mark.slow
def test_inductor_compiles_small_sums_by_themselves():
    """On a CPU; see docs/implementations.md."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('inductor')
    compiled = torch.compile(
        lambda x: x.sum((0, 2, 3)),
        fullgraph=True,
        dynamic=True,
        backend=counter,
    )
    for side in (8, 9, 64, 65, 10):  # 4096 values lie between
        compiled(torch.randn(2, 3, side, side))
    assert counter.frame_count == 2
