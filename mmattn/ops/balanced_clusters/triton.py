"""Balanced clusters in Triton: a launch sorts and halves all groups.

Axes: B images, h heads, N tokens, d channels.
"""

import torch
from torch import Tensor

from .. import _triton
from .._triton import (
    ceil_div,
    on_device_of,
    power_of_2,
    tile_side,
    with_unit_stride,
)
from ..cluster_layout import cluster_levels
from .api import ARGUMENTS, empty_order

_MOST_CHANNELS = 256
_MOST_CLUSTERED = 2**24  # tokens, for as many programs as a grid holds
# Most tokens that one program sorts; several programs share larger groups.
_MOST_TOKENS = 4096
_SHARES = 32  # programs that sum up a larger group
_RUNS = 32  # of so many tokens that one launch merges
_MERGED = 512  # tokens that a program merges
_THREAD_VALUES = 16  # of a thread's features, read at once


def why_not(features: Tensor, *args) -> str | None:
    if features.shape[-1] > _MOST_CHANNELS:
        return f'it takes features of at most {_MOST_CHANNELS} channels'
    if features.shape[-2] > _MOST_CLUSTERED:
        return f'it takes at most {_MOST_CLUSTERED} tokens'
    return _triton.why_not(features)


def balanced_clusters(
    features: Tensor, cluster_size: int, iterations: int, temperature: float
) -> Tensor:
    """Order the tokens level by level.

    A level whose groups have at most 4096 tokens takes one launch; a level of
    larger groups takes ``iterations + 2`` and merges sorted runs, 32 at a
    time. The order equals that of the reference except for tokens whose
    ratios differ by float32 rounding.
    """
    shape = features.shape[:-1]
    N = shape[-1]
    levels = cluster_levels(N, cluster_size)
    if not levels or not features.numel():
        return torch.arange(N, device=features.device).repeat(*shape[:-1], 1)
    features = with_unit_stride(features)
    features = features if features.ndim == 4 else features[:, None]
    peaks = torch.linalg.vector_norm(
        features, torch.inf, dim=(2, 3), dtype=torch.float32
    )
    order = empty_order(features)
    for level in range(levels):
        most = ceil_div(N, 1 << level)
        halve = _halve if most <= _MOST_TOKENS else _halve_in_shares
        options = level, iterations, temperature
        with on_device_of(features):
            order = halve(features, peaks, order, *options)
    return order.view(shape)


def _halve(
    features: Tensor,
    peaks: Tensor,
    order: Tensor,
    level: int,
    iterations: int,
    temperature: float,
) -> Tensor:
    """Sort every group of a level, each by one program."""
    from .kernels import sort_groups

    B, h, N, _ = features.shape
    BLOCK = power_of_2(ceil_div(N, 1 << level))
    sorted_order = torch.empty_like(order)
    sort_groups[B << level, 1, h](
        *(features, peaks, order, sorted_order),
        *features.stride()[:3],
        *(N, level, iterations, temperature),
        **_sorting_tiles(features, BLOCK),
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
    from .kernels import add_shares, merge_runs, sort_runs

    B, h, N, d = features.shape
    groups, most = B << level, ceil_div(N, 1 << level)
    steps = 1 + iterations
    sums = peaks.new_empty(steps, h, groups, _SHARES, 2, d)
    tensors = features, peaks, order, sums
    sizes = *features.stride()[:3], N, level
    for step in range(steps):
        add_shares[groups, _SHARES, h](
            *(*tensors, *sizes, step, temperature),
            SHARES=_SHARES,
            **_tiles(features, num_warps=4),
        )
    keys, length = torch.empty_like(order), _MOST_TOKENS
    sort_runs[groups, ceil_div(most, length), h](
        *(*tensors, keys, *sizes, steps),
        SHARES=_SHARES,
        **_sorting_tiles(features, length),
    )
    CHUNK = min(_MERGED, length)
    while length < most:
        merged, merged_length = torch.empty_like(order), length * _RUNS
        merge_runs[groups, ceil_div(most, CHUNK), h](
            *(order, keys, merged, N, level, length, merged_length),
            CHUNK=CHUNK,
        )
        keys, length = merged, merged_length
    return keys


def _sorting_tiles(features: Tensor, BLOCK: int) -> dict[str, int]:
    tiles = _tiles(features, num_warps=8 if BLOCK > 1024 else 4)
    return {**tiles, 'BLOCK': BLOCK, 'CHUNK': min(tiles['CHUNK'], BLOCK)}


def _tiles(features: Tensor, num_warps: int) -> dict[str, int]:
    d = features.shape[-1]
    BLOCK_D = tile_side(d, 1024)
    return {
        'CHANNELS': d,
        'CHUNK': max(_THREAD_VALUES * 32 * num_warps // BLOCK_D, 1),
        'BLOCK_D': BLOCK_D,
        'num_warps': num_warps,
    }


_triton.register_kernel(
    'balanced_clusters',
    ARGUMENTS,
    balanced_clusters,
    None,
    why_not,
    empty=empty_order,
)
