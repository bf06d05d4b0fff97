import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattn.ops import cluster_sizes
from mmattn.ops.cluster_layout import group_slots, overlap_sizes


def test_sizes_of_no_cluster():
    with pytest.raises(ValueError, match='cluster_size >= 1, got 0'):
        cluster_sizes(10, 0)


@given(levels=st.integers(0, 6), num_tokens=st.integers(64, 2000))
def test_slots_hold_every_place_once(levels, num_tokens):
    sizes = [num_tokens]
    for _ in range(levels):
        sizes = [half for n in sizes for half in (n - n // 2, n // 2)]
    places, held, slots = group_slots(num_tokens, levels, torch.device('cpu'))
    assert places.shape == held.shape == (2**levels, max(sizes))
    assert held.sum(1).tolist() == sizes
    assert torch.equal(places[held], torch.arange(num_tokens))
    assert torch.equal(places.flatten()[slots], torch.arange(num_tokens))
    assert held.flatten()[slots].all()
    # An empty slot stands for the last place of its group.
    last = torch.tensor(sizes).cumsum(0) - 1
    assert torch.equal(places[~held], last[(~held).nonzero()[:, 0]])


@pytest.mark.parametrize(
    'sizes, overlap, want',
    [
        ([49], 20, [0]),
        ([49, 49], 20, [20, 20]),
        ([66, 65, 65, 65], 20, [27, 27, 27, 27]),
        ([5, 4], 5, [4, 4]),  # all of the sibling, which has one token less
    ],
)
def test_overlap_with_the_sibling(sizes, overlap, want):
    cluster_size = 5 if max(sizes) == 5 else 49
    assert overlap_sizes(sizes, cluster_size, overlap) == want
