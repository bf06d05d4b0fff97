"""Custom operators of the attention inside clusters.

Axes: B images, h heads, N tokens, d channels of a head.
"""

import torch
import triton
from torch import Tensor

from ..cluster_attention import near_size
from ..clustering import cluster_sizes
from .cluster_attention_kernels import (
    attend,
    attend_backward_keys,
    attend_backward_queries,
)
from .device_functions import on_device_of, tile_side, with_unit_stride

# Of a tile. Wide float32 rows leave no registers for more.
_MOST_QUERIES, _MOST_KEYS, _MOST_WIDE = 64, 32, 32
_WIDE = 128  # bytes of a row, from which on it counts as wide


@torch.library.custom_op(
    'mmattn::cluster_attention',
    mutates_args=(),
    schema='(Tensor q, Tensor k, Tensor v, Tensor order, SymInt cluster_size,'
    ' SymInt overlap, float scale) -> (Tensor, Tensor)',
)
def cluster_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    cluster_size: int,
    overlap: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attend as ``mmattn.ops.cluster_attention``, heads on an axis of theirs.

    Args:
        q: Queries, ``(B, h, N, d)``, of any strides, as are the others.
        k: Keys, ``(B, h, N, d)``.
        v: Values, ``(B, h, N, d)``.
        order: ``(B, h, N)`` int64.
        cluster_size: Tokens that a cluster holds at least.
        overlap: Tokens of the sibling for a cluster of ``cluster_size``.
        scale: Factor of the products.

    Returns:
        The result ``(B, h, N, d)``, the heads of a token side by side in
        memory; the logarithm, to base 2, of the sum of each query's
        exponentials, ``(B, h, N)`` float32.
    """
    q, k, v = map(with_unit_stride, (q, k, v))
    out, lse = _empty_like_tokens(q), _empty_sums(q)
    grid, sizes, tiles = _plan(q, cluster_size, overlap)
    if q.numel():
        with on_device_of(q):
            attend[grid](
                *(q, k, v, order.contiguous(), out, lse),
                *(s for x in (q, k, v, out) for s in x.stride()[:3]),
                *sizes,
                scale,
                **tiles,
            )
    return out, lse


@cluster_attention.register_fake
def _(q, k, v, order, cluster_size, overlap, scale):
    return _empty_like_tokens(q), _empty_sums(q)


@torch.library.custom_op(
    'mmattn::cluster_attention_backward',
    mutates_args=(),
    schema='(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor order, '
    'Tensor lse, SymInt cluster_size, SymInt overlap, float scale) '
    '-> (Tensor, Tensor, Tensor)',
)
def cluster_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    lse: Tensor,
    cluster_size: int,
    overlap: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, in their dtype."""
    grad, q, k, v = map(with_unit_stride, (grad, q, k, v))
    dq, dk, dv = (_empty_like_tokens(q) for _ in range(3))
    grid, sizes, tiles = _plan(q, cluster_size, overlap)
    tensors = q, k, v, order.contiguous(), lse, grad, torch.empty_like(lse)
    strides = [s for x in (q, k, v, grad, dq) for s in x.stride()[:3]]
    if q.numel():
        with on_device_of(q):
            attend_backward_queries[grid](
                *tensors, dq, *strides, *sizes, scale, **tiles
            )
            attend_backward_keys[grid](
                *tensors, dk, dv, *strides, *sizes, scale, **tiles
            )
    return dq, dk, dv


@cluster_attention_backward.register_fake
def _(grad, q, k, v, order, lse, cluster_size, overlap, scale):
    return tuple(_empty_like_tokens(q) for _ in range(3))


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.cluster_size, ctx.overlap, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx, grad: Tensor, _) -> tuple:
    options = ctx.cluster_size, ctx.overlap, ctx.scale
    grads = cluster_attention_backward(grad, *ctx.saved_tensors, *options)
    return *grads, None, None, None, None


cluster_attention.register_autograd(_differentiate, setup_context=_save)


def _empty_like_tokens(x: Tensor) -> Tensor:
    """``(B, h, N, d)`` whose memory holds token after token."""
    B, h, N, d = x.shape
    return x.new_empty(B, N, h, d).transpose(1, 2)


def _empty_sums(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=torch.float32)


def _plan(q: Tensor, cluster_size: int, overlap: int) -> tuple:
    """Grid, sizes and tiles of a launch, as the kernels take them."""
    B, h, N, d = q.shape
    sizes = cluster_sizes(N, cluster_size)
    most, least = max(sizes), min(sizes)
    levels = len(sizes).bit_length() - 1
    near = [0, 0]
    if levels:
        near = [near_size(n, cluster_size, overlap) for n in (least, most)]
    is_wide = d * q.element_size() > _WIDE
    BLOCK_M = tile_side(most, _MOST_WIDE if is_wide else _MOST_QUERIES)
    blocks = triton.cdiv(most, BLOCK_M)
    tiles = {
        'CHANNELS': d,
        'BLOCK_M': BLOCK_M,
        'BLOCK_N': tile_side(most, _MOST_KEYS),
        'BLOCK_D': tile_side(d, 128),
    }
    grid = (B * h * len(sizes) * blocks,)
    return grid, (h, N, levels, blocks, least, *near), tiles
