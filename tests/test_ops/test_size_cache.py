import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mmattn.ops import (
    balanced_clusters,
    cluster_attention,
    relative_position_bias,
    window_attention,
)
from mmattn.ops.cluster_attention.slots import slot_tables
from mmattn.ops.size_cache import cached_per_size

CPU = torch.device('cpu')


@pytest.fixture
def numbers():

    @cached_per_size
    def numbers(n, device):
        """Count."""
        return torch.arange(n, device=device)

    return numbers


def attend(x, impl='auto'):
    """Use every cached table with sizes that no other test takes."""
    tokens = x.flatten(1, 2)[..., :4]
    order = balanced_clusters(tokens, 3)
    tokens = tokens.repeat(1, 1, 3)
    out = cluster_attention(tokens, order[:, None], 3, 2, impl=impl)
    bias = relative_position_bias(x.new_ones(25, 2), 3)
    return out.sum() + window_attention(x, 2, 3, 2, bias).sum()


def test_table_is_built_once(numbers):
    assert numbers(3, CPU) is numbers(3, CPU)
    assert numbers(3, CPU).tolist() == [0, 1, 2]
    assert numbers(4, CPU).tolist() == [0, 1, 2, 3]
    assert numbers.__doc__ == 'Count.'


def test_cache_is_bounded_and_forgets_the_oldest(numbers):
    first = numbers(0, CPU)
    for n in range(1, 200):
        numbers(n, CPU)
    assert numbers.cache_info().currsize == 64
    assert numbers(199, CPU) is numbers(199, CPU)
    assert numbers(0, CPU) is not first


def test_table_built_in_inference_mode_serves_training(numbers):
    with torch.inference_mode():
        assert not numbers(5, CPU).is_inference()
    x = torch.randn(1, 6, 15, 12)
    with torch.inference_mode():
        attend(x)
    x.requires_grad_()
    attend(x).backward()
    assert x.grad.isfinite().all()


def test_table_built_with_gradients_off_and_on(numbers):
    with torch.enable_grad():
        assert not numbers(5, CPU).requires_grad


def test_fake_tensors_are_not_kept(numbers):
    with FakeTensorMode():
        assert isinstance(numbers(6, CPU), FakeTensor)
        attend(torch.randn(1, 6, 18, 12))
    assert not isinstance(numbers(6, CPU), FakeTensor)
    x = torch.randn(1, 6, 18, 12, requires_grad=True)
    out = attend(x)
    assert not isinstance(out, FakeTensor)
    out.backward()


@pytest.mark.usefixtures('compiler')
@pytest.mark.parametrize('strict', [False, True])
def test_export_keeps_no_table(strict):

    class Layer(torch.nn.Module):
        def forward(self, x):
            return attend(x)

    x = torch.randn(1, 6, 27 if strict else 24, 12)
    before = slot_tables.cache_info()
    program = torch.export.export(Layer(), (x,), strict=strict)
    assert slot_tables.cache_info() == before
    want = attend(x, 'sdpa')
    torch.testing.assert_close(program.module()(x), want)
    assert slot_tables.cache_info().misses == before.misses + 1


@pytest.mark.usefixtures('compiler')
def test_compiling_keeps_no_table():
    x = torch.randn(1, 6, 30, 12)
    before = slot_tables.cache_info()
    out = torch.compile(attend, fullgraph=True, backend='aot_eager')(x)
    assert slot_tables.cache_info() == before
    torch.testing.assert_close(out, attend(x))
