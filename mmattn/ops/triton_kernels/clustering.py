"""Custom operator of balanced clustering.

Axes: G problems, N tokens, d channels.
"""

import torch
from torch import Tensor

from .. import clustering
from .clustering_kernels import add_shares, rank_shares, sort_groups
from .device_functions import (
    ceil_div,
    on_device_of,
    power_of_2,
    tile_side,
    with_unit_stride,
)

# Tokens of a group that one program sorts. A larger group is shared by several
# until it is small enough.
_MOST_TOKENS = 4096
_SHARES = 32  # programs of a larger group
_THREAD_VALUES = 16  # of a thread's features, read at once


@torch.library.custom_op(
    'mmattn::balanced_clusters',
    mutates_args=(),
    schema='(Tensor features, SymInt cluster_size, SymInt iterations, '
    'float temperature) -> Tensor',
)
def balanced_clusters(
    features: Tensor, cluster_size: int, iterations: int, temperature: float
) -> Tensor:
    """Compute what ``mmattn.ops.balanced_clusters`` defines.

    One launch for each level whose groups have at most 4096 tokens; some and
    a sort before. The order is that of the definition, but for tokens whose
    ratios differ by no more than float32 rounds.

    Args:
        features: ``(G, N, d)`` or ``(B, h, N, d)``.
        cluster_size: Tokens that a cluster holds at least.
        iterations: Refinements of the centroids.
        temperature: Sharpness of the assignment to the centroids.

    Returns:
        ``(G, N)`` or ``(B, h, N)`` int64.
    """
    shape = features.shape[:-1]
    features = features.flatten(0, -3)
    G, N, d = features.shape
    sizes = clustering.cluster_sizes(N, cluster_size)
    levels = len(sizes).bit_length() - 1
    order = torch.arange(N, device=features.device).repeat(G, 1)
    if not levels or not features.numel():
        return order.view(shape)
    features = with_unit_stride(features)
    peaks = torch.linalg.vector_norm(
        features, torch.inf, dim=(1, 2), dtype=torch.float32
    )
    for level in range(levels):
        most = ceil_div(N, 1 << level)
        halve = _halve if most <= _MOST_TOKENS else _halve_in_shares
        with on_device_of(features):
            order = halve(
                features, peaks, order, level, iterations, temperature
            )
    return order.view(shape)


@balanced_clusters.register_fake
def _(features, cluster_size, iterations, temperature):
    return features.new_empty(features.shape[:-1], dtype=torch.int64)


def _halve(
    features: Tensor,
    peaks: Tensor,
    order: Tensor,
    level: int,
    iterations: int,
    temperature: float,
) -> Tensor:
    """Sort every group of a level, each by one program."""
    G, N, _ = features.shape
    BLOCK = power_of_2(ceil_div(N, 1 << level))
    num_warps = 8 if BLOCK > 1024 else 4
    tiles = _tiles(features, level, num_warps)
    tiles['CHUNK'] = min(tiles['CHUNK'], BLOCK)
    sorted_order = torch.empty_like(order)
    sort_groups[G << level,](
        *(features, peaks, order, sorted_order),
        *features.stride()[:2],
        *(N, level, iterations, temperature),
        BLOCK=BLOCK,
        **tiles,
    )
    return sorted_order


def _halve_in_shares(
    features: Tensor,
    peaks: Tensor,
    order: Tensor,
    level: int,
    iterations: int,
    temperature: float,
) -> Tensor:
    """Sort every group of a level, each shared by several programs."""
    G, N, d = features.shape
    grid = ((G << level) * _SHARES,)
    tiles = _tiles(features, level, 4) | {'SHARES': _SHARES}
    shape = G << level, _SHARES, 2, d
    sums, next_sums = peaks.new_empty(2, *shape).unbind()
    tensors = features, peaks, order
    sizes = *features.stride()[:2], N, level
    for step in range(1 + iterations):
        add_shares[grid](
            *(*tensors, sums, next_sums, *sizes, temperature),
            IS_START=step == 0,
            **tiles,
        )
        sums, next_sums = next_sums, sums
    keys = torch.empty_like(order)
    bits = (N - 1).bit_length()
    rank_shares[grid](*tensors, sums, keys, *sizes, bits, **tiles)
    # Numbers of one group lie before those of the next: one sort for all.
    places = keys.sort(dim=1).values & ((1 << bits) - 1)
    return order.gather(1, places)


def _tiles(features: Tensor, level: int, num_warps: int) -> dict[str, int]:
    d = features.shape[-1]
    BLOCK_D = tile_side(d, 1024)
    return {
        'IS_FIRST': level == 0,
        'CHANNELS': d,
        'CHUNK': max(_THREAD_VALUES * 32 * num_warps // BLOCK_D, 1),
        'BLOCK_D': BLOCK_D,
        'num_warps': num_warps,
    }
