"""Cluster attention in C++: a cluster and its sibling at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _native
from .._native.grouped_attention import (
    Groups,
    Plan,
    attend,
    attend_backward,
)
from ..cluster_layout import cluster_sizes, overlap_sizes
from ..size_cache import cached_per_size
from .api import ARGUMENTS


def why_not(qkv: Tensor, order: Tensor, *args) -> str | None:
    if order.device != qkv.device or order.is_floating_point():
        return 'it takes an order of integers on the device of the map'
    return _native.why_not(qkv)


def plan(
    qkv: Tensor, order: Tensor, cluster_size: int, overlap: int, scale: float
) -> Plan:
    """Arguments of the grouped attention."""
    ranges = _cluster_ranges(qkv.shape[1], cluster_size, overlap)
    groups = Groups(order.int().contiguous(), *ranges)
    return Plan(qkv, order.shape[1], [groups], scale)


def forward(qkv: Tensor, order: Tensor, *args) -> list[Tensor]:
    N = qkv.shape[1]
    # An index outside of the map would access other memory (scatter raises a
    # RuntimeError); a missing token would have an uninitialized result.
    seen = torch.zeros(order.shape, dtype=torch.bool, device='cpu')
    if not seen.scatter_(-1, order.long(), True).all():
        raise IndexError(
            f'cluster_attention expects an order of the tokens 0 to {N - 1}, '
            'each once for each head of each image; some are missing'
        )
    return [attend(plan(qkv, order, *args))]


def backward(
    grad: Tensor, kept: Sequence[Tensor], wanted: Sequence[bool], *args
) -> list[Tensor | None]:
    return [attend_backward(grad, (), plan(*args))['qkv'], None]


@cached_per_size
def _cluster_ranges(
    num_tokens: int, cluster_size: int, overlap: int
) -> tuple[Tensor, int, int, int]:
    """The fields of :class:`Groups` behind the index."""
    sizes = cluster_sizes(num_tokens, cluster_size)
    near = overlap_sizes(sizes, cluster_size, overlap)
    ranges, start = [], 0
    for i, (own, more) in enumerate(zip(sizes, near)):
        end = start + own
        # Next to the cut: after the first sibling, before the second.
        keys = (start, end + more) if i % 2 == 0 else (start - more, end)
        ranges.append((start, end, *keys))
        start = end
    siblings = min(2, len(sizes))
    most_keys = max(map(sum, zip(sizes, near)))
    ranges = torch.tensor(ranges, dtype=torch.int32, device='cpu')
    return ranges, sum(sizes[:siblings]), most_keys, siblings


_native.register_kernel(
    'cluster_attention', ARGUMENTS, forward, backward, why_not
)
