"""Window attention in C++: one window at a time stays in the caches."""

import torch
from torch import Tensor

from .._native.grouped_attention import (
    Groups,
    Plan,
    equal_groups,
    register_grouped,
)
from ..size_cache import cached_per_size
from ..windows import Size, needed_shift, split_windows
from .api import ARGUMENTS


def plan(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    scale: float,
) -> Plan:
    """Arguments of the grouped attention."""
    groups = _windows(qkv.shape[1:3], window_size, shift, qkv.device)
    return Plan(qkv, num_heads, [groups], scale, bias)


@cached_per_size
def _windows(
    size: Size, window_size: int, shift: int, device: torch.device
) -> Groups:
    H, W = size
    window, N = (window_size, window_size), window_size**2
    shift = needed_shift(size, window_size, shift)
    tokens = torch.arange(H * W, device=device).view(1, H, W, 1)
    tokens = tokens.roll((-shift, -shift), dims=(1, 2))
    index = split_windows(tokens, window).flatten().int()
    regions = None
    if shift:
        # Rolling brings opposite ends of the map together.
        rows, columns = (
            torch.arange(side, device=device) >= side - shift for side in size
        )
        regions = 2 * rows[:, None].int() + columns.int()
        regions = split_windows(regions[None, ..., None], window)
        regions = regions.flatten().contiguous()
    ranges = equal_groups(H * W, N, device)
    return Groups(index, ranges, N, N, regions=regions)


register_grouped('window_attention', ARGUMENTS, plan, ('qkv', 'bias'))
