"""Cluster attention in Triton: tokens gathered and scattered by index.

Axes: B images, h heads, N tokens, C = h * d channels, d channels of a head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _triton
from .._triton import ceil_div, on_device_of, tile_side, with_unit_stride
from ..cluster_layout import cluster_sizes, overlap_size
from ..custom_op import empty_like_values
from .api import ARGUMENTS

# Most tokens of a tile; wide float32 rows need more registers.
_MOST_QUERIES, _MOST_KEYS, _MOST_WIDE = 64, 32, 32
_WIDE = 128  # bytes of a row, above which it counts as wide


def why_not(qkv: Tensor, order: Tensor, *args) -> str | None:
    channels = qkv.shape[-1] // (3 * order.shape[1])
    return _triton.why_not(qkv) or _triton.why_not_channels(channels)


def forward(
    qkv: Tensor, order: Tensor, cluster_size: int, overlap: int, scale: float
) -> list[Tensor]:
    """The result and, for the backward pass, each query's log-sum-exp.

    The latter is ``(B, h, N)`` float32, to base 2, in cluster order.
    """
    from .kernels import attend

    qkv = with_unit_stride(qkv)
    out, lse = empty(qkv, order)
    grid, sizes, tiles = _plan(qkv, order, cluster_size, overlap)
    if out.numel():
        with on_device_of(qkv):
            attend[grid](
                *(qkv, order.contiguous(), out, lse),
                *qkv.stride()[:2],
                *out.stride()[:2],
                *sizes,
                scale,
                **tiles,
            )
    return [out, lse]


def backward(
    grad: Tensor,
    kept: Sequence[Tensor],
    wanted: Sequence[bool],
    qkv: Tensor,
    order: Tensor,
    cluster_size: int,
    overlap: int,
    scale: float,
) -> list[Tensor | None]:
    from .kernels import attend_backward_keys, attend_backward_queries

    (lse,), qkv = kept, with_unit_stride(qkv)
    dqkv = qkv.new_empty(qkv.shape)
    grid, sizes, tiles = _plan(qkv, order, cluster_size, overlap)
    tensors = qkv, order.contiguous(), lse, grad, torch.empty_like(lse), dqkv
    strides = [s for x in (qkv, grad, dqkv) for s in x.stride()[:2]]
    if grad.numel():
        with on_device_of(qkv):
            for kernel in (attend_backward_queries, attend_backward_keys):
                kernel[grid](*tensors, *strides, *sizes, scale, **tiles)
    return [dqkv, None]


def empty(qkv: Tensor, order: Tensor, *args) -> list[Tensor]:
    """Uninitialized results of :func:`forward`."""
    lse = qkv.new_empty(order.shape, dtype=torch.float32)
    return [*empty_like_values(qkv), lse]


def _plan(
    qkv: Tensor, order: Tensor, cluster_size: int, overlap: int
) -> tuple:
    """Grid, sizes and tiles of a launch, as the kernels take them."""
    B, h, N = order.shape
    d = qkv.shape[-1] // (3 * h)
    sizes = cluster_sizes(N, cluster_size)
    most, least = max(sizes), min(sizes)
    levels = len(sizes).bit_length() - 1
    near = [0, 0]
    if levels:
        near = [overlap_size(n, cluster_size, overlap) for n in (least, most)]
    is_wide = d * qkv.element_size() > _WIDE
    BLOCK_M = tile_side(most, _MOST_WIDE if is_wide else _MOST_QUERIES)
    blocks = ceil_div(most, BLOCK_M)
    tiles = {
        'CHANNELS': d,
        'BLOCK_M': BLOCK_M,
        'BLOCK_N': tile_side(most, _MOST_KEYS),
        'BLOCK_D': tile_side(d, 128),
    }
    grid = (B * h * len(sizes) * blocks,)
    return grid, (h, N, levels, blocks, least, *near), tiles


_triton.register_kernel(
    'cluster_attention',
    ARGUMENTS,
    forward,
    backward,
    why_not,
    empty=empty,
)
