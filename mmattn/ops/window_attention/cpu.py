"""Window attention in C++: one window at a time, map to caches and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _native
from .._native.grouped_attention import (
    Groups,
    attend,
    attend_backward,
    equal_groups,
)
from ..custom_op import define_kernel, empty_like_values
from ..dispatch import find_implementation
from ..size_cache import cached_per_size
from ..windows import Size, needed_shift, split_windows
from .api import ARGUMENTS


def why_not(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    scale: float,
) -> str | None:
    return _native.why_not(qkv, bias)


def plan(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    scale: float,
) -> tuple:
    """Arguments of the grouped attention."""
    groups = _windows(qkv.shape[1:3], window_size, shift, qkv.device)
    return qkv, num_heads, [groups], scale, bias


def forward(*args) -> list[Tensor]:
    return [attend(*plan(*args))]


def backward(
    grad: Tensor, kept: Sequence[Tensor], wanted: Sequence[bool], *args
) -> list[Tensor | None]:
    wanted = [*wanted, False, False]  # there is no convolution
    return attend_backward(grad, wanted, *plan(*args))[:2]


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


_native.register_kernel(
    'window_attention',
    define_kernel(
        'window_attention_cpp',
        ARGUMENTS,
        forward,
        backward,
        empty_like_values,
        find_implementation('window_attention', 'reference').function,
    ),
    why_not,
)
