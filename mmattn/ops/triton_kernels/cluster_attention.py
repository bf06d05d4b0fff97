"""Custom operators of the attention inside clusters.

Axes: B images, h heads, N tokens, C = h * d channels, d channels of a head.
"""

import torch
from torch import Tensor

from ..cluster_attention import near_size
from ..clustering import cluster_sizes
from .cluster_attention_kernels import (
    attend,
    attend_backward_keys,
    attend_backward_queries,
)
from .device_functions import (
    ceil_div,
    on_device_of,
    tile_side,
    with_unit_stride,
)

# Of a tile. Wide float32 rows leave no registers for more.
_MOST_QUERIES, _MOST_KEYS, _MOST_WIDE = 64, 32, 32
_WIDE = 128  # bytes of a row, from which on it counts as wide


@torch.library.custom_op(
    'mmattn::cluster_attention',
    mutates_args=(),
    schema='(Tensor qkv, Tensor order, SymInt cluster_size, SymInt overlap, '
    'float scale) -> (Tensor, Tensor)',
)
def cluster_attention(
    qkv: Tensor, order: Tensor, cluster_size: int, overlap: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Compute what ``mmattn.ops.cluster_attention`` defines.

    Args:
        qkv: Queries, keys and values side by side, ``(B, N, 3 * C)``.
        order: ``(B, h, N)`` int64.
        cluster_size: Tokens that a cluster holds at least.
        overlap: Tokens of the sibling for a cluster of ``cluster_size``.
        scale: Factor of the products.

    Returns:
        The result, ``(B, N, C)``; the logarithm, to base 2, of the sum of
        each query's exponentials, ``(B, h, N)`` float32, the queries in the
        order of the clusters.
    """
    qkv = with_unit_stride(qkv)
    out, lse = _empty_results(qkv, order)
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
    return out, lse


@cluster_attention.register_fake
def _empty_results(qkv, order, *options):
    B, N, channels = qkv.shape
    out = qkv.new_empty(B, N, channels // 3)
    return out, qkv.new_empty(order.shape, dtype=torch.float32)


@torch.library.custom_op(
    'mmattn::cluster_attention_backward',
    mutates_args=(),
    schema='(Tensor grad, Tensor qkv, Tensor order, Tensor lse, '
    'SymInt cluster_size, SymInt overlap, float scale) -> Tensor',
)
def cluster_attention_backward(
    grad: Tensor,
    qkv: Tensor,
    order: Tensor,
    lse: Tensor,
    cluster_size: int,
    overlap: int,
    scale: float,
) -> Tensor:
    """Gradient of ``qkv``, in its dtype."""
    grad, qkv = with_unit_stride(grad), with_unit_stride(qkv)
    dqkv = _empty_gradient(grad, qkv)
    grid, sizes, tiles = _plan(qkv, order, cluster_size, overlap)
    tensors = qkv, order.contiguous(), lse, grad, torch.empty_like(lse), dqkv
    strides = [s for x in (qkv, grad, dqkv) for s in x.stride()[:2]]
    if grad.numel():
        with on_device_of(qkv):
            for kernel in (attend_backward_queries, attend_backward_keys):
                kernel[grid](*tensors, *strides, *sizes, scale, **tiles)
    return dqkv


@cluster_attention_backward.register_fake
def _empty_gradient(grad, qkv, *options):
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output) -> None:
    qkv, order, *ctx.options = inputs
    ctx.save_for_backward(qkv, order, output[1])


def _differentiate(ctx, grad: Tensor, _) -> tuple:
    dqkv = cluster_attention_backward(grad, *ctx.saved_tensors, *ctx.options)
    return dqkv, None, None, None, None


cluster_attention.register_autograd(_differentiate, setup_context=_save)


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
        near = [near_size(n, cluster_size, overlap) for n in (least, most)]
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
