"""Custom operators of the attention inside stripes.

Axes: B images, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, s width of a stripe.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..cross_shaped_attention import stripe_sizes
from .cross_shaped_attention_kernels import (
    SUMS,
    attend_stripes,
    attend_stripes_backward_keys,
    attend_stripes_backward_queries,
)
from .device_functions import (
    ceil_div,
    on_device_of,
    tile_side,
    with_unit_stride,
)

# Tokens of a tile. Wide float32 rows leave no registers for more.
_MOST_TOKENS, _MOST_WIDE = 64, 32
_WIDE = 128  # bytes of a row, above which it counts as wide

_OPTIONS = (
    'Tensor qkv, Tensor local_weight, Tensor? local_bias, SymInt num_heads, '
    'SymInt? stripe_width, float scale'
)


@torch.library.custom_op(
    'mmattn::cross_shaped_attention',
    mutates_args=(),
    schema=f'({_OPTIONS}) -> (Tensor, Tensor)',
)
def cross_shaped_attention(
    qkv: Tensor,
    local_weight: Tensor,
    local_bias: Tensor | None,
    num_heads: int,
    stripe_width: int | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute what ``mmattn.ops.cross_shaped_attention`` defines.

    Args:
        qkv: ``(B, H, W, 3 * C)``.
        local_weight: ``(C, 1, 3, 3)``.
        local_bias: ``(C, )``, or None.
        num_heads: Number of heads h of both orientations.
        stripe_width: Columns or rows s of a stripe, or None for the map.
        scale: Factor of the products.

    Returns:
        ``(B, H, W, C)``; the logarithm, to base 2, of the sum of each query's
        exponentials, ``(B, h, H, W)`` float32.
    """
    qkv = with_unit_stride(qkv)
    out, lse = _empty_results(qkv, local_weight, local_bias, num_heads)
    if not out.numel():
        return out, lse
    plan = _plan(qkv, num_heads, stripe_width)
    taps = _taps(local_weight)
    with on_device_of(qkv):
        attend_stripes[plan.grid](
            *(qkv, taps, taps if local_bias is None else local_bias),
            *(out, lse),
            *qkv.stride()[:3],
            *plan.sizes,
            scale,
            HAS_BIAS=local_bias is not None,
            IS_WHOLE=plan.is_whole,
            **plan.tiles,
        )
    return out, lse


@cross_shaped_attention.register_fake
def _empty_results(qkv, local_weight, local_bias, num_heads, *options):
    B, H, W, channels = qkv.shape
    out = qkv.new_empty(B, H, W, channels // 3)
    return out, qkv.new_empty(B, num_heads, H, W, dtype=torch.float32)


@torch.library.custom_op(
    'mmattn::cross_shaped_attention_backward',
    mutates_args=(),
    schema=f'(Tensor grad, Tensor lse, {_OPTIONS}) '
    '-> (Tensor, Tensor, Tensor)',
)
def cross_shaped_attention_backward(
    grad: Tensor,
    lse: Tensor,
    qkv: Tensor,
    local_weight: Tensor,
    local_bias: Tensor | None,
    num_heads: int,
    stripe_width: int | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``qkv``, of the convolution's weight and of its bias.

    Each in its dtype, empty for a bias that is None.
    """
    grad, qkv = with_unit_stride(grad), with_unit_stride(qkv)
    grads = _empty_gradients(grad, lse, qkv, local_weight, local_bias)
    dqkv, dweight, dbias = grads
    if not grad.numel():
        return dqkv, dweight.zero_(), dbias.zero_()
    plan = _plan(qkv, num_heads, stripe_width, is_backward=True)
    d = plan.tiles['CHANNELS']
    sums = lse.new_empty(len(qkv), sum(plan.pieces), SUMS.value, d)
    means = lse if plan.is_whole else torch.empty_like(lse)
    layout = *qkv.stride()[:3], *grad.stride()[:3], *plan.sizes, scale
    with on_device_of(qkv):
        if not plan.is_whole:
            attend_stripes_backward_queries[plan.grid](
                *(qkv, grad, lse, means, dqkv), *layout, **plan.tiles
            )
        attend_stripes_backward_keys[plan.grid](
            *(qkv, _taps(local_weight), grad, lse, means, dqkv, sums),
            *layout,
            IS_WHOLE=plan.is_whole,
            **plan.tiles,
        )
    # Programs of a head lie as many apart as there are heads of its part.
    parts = sums.split(plan.pieces, 1)
    share = num_heads // len(parts)
    totals = [x.unflatten(1, (-1, share)).sum((0, 1)) for x in parts]
    total = torch.cat(totals).transpose(1, 2).flatten(0, 1)  # (C, SUMS)
    dweight.copy_(total[:, :-1].view_as(dweight))
    if local_bias is not None:
        dbias.copy_(total[:, -1])
    return dqkv, dweight, dbias


@cross_shaped_attention_backward.register_fake
def _empty_gradients(grad, lse, qkv, local_weight, local_bias, *options):
    return tuple(
        qkv.new_empty(0)
        if x is None
        else torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in (qkv, local_weight, local_bias)
    )


def _save(ctx, inputs, output) -> None:
    qkv, local_weight, local_bias, *ctx.options = inputs
    ctx.save_for_backward(output[1], qkv, local_weight, local_bias)


def _differentiate(ctx, grad: Tensor, _) -> tuple:
    lse, *inputs = ctx.saved_tensors
    grads = cross_shaped_attention_backward(grad, lse, *inputs, *ctx.options)
    grads = [None if x is None else dx for x, dx in zip(inputs, grads)]
    return *grads, None, None, None


cross_shaped_attention.register_autograd(_differentiate, setup_context=_save)


def _taps(local_weight: Tensor) -> Tensor:
    """One number of each channel side by side, ``(9, C)``."""
    return local_weight.flatten(1).mT.contiguous()


class _Plan(NamedTuple):
    """A launch, as the kernels take it.

    Attributes:
        grid: All programs.
        pieces: Programs of an image, of each part of the heads.
        sizes: Of the map, of the launch and of the stripes.
        is_whole: Whether a program holds a stripe.
        tiles: How the kernel is compiled.
    """

    grid: tuple[int]
    pieces: list[int]
    sizes: tuple[int, ...]
    is_whole: bool
    tiles: dict[str, int]


def _plan(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    is_backward: bool = False,
) -> _Plan:
    B, H, W, channels = qkv.shape
    d = channels // (3 * num_heads)
    stripes = stripe_sizes((H, W), stripe_width)
    most = max(high * wide for high, wide in stripes)
    width = d * qkv.element_size()
    # The backward pass keeps more at once: its tiles have a narrow side then.
    is_narrow = is_backward and (d * 4 > _WIDE or qkv.element_size() == 4)
    BLOCK_M = tile_side(most, _MOST_WIDE if width > _WIDE else _MOST_TOKENS)
    share = num_heads // len(stripes)
    pieces = [
        share
        * ceil_div(H, high)
        * ceil_div(W, wide)
        * ceil_div(high * wide, BLOCK_M)
        for high, wide in stripes
    ]
    sizes = H, W, num_heads, sum(pieces), pieces[0]
    tiles = {
        'CHANNELS': d,
        'PARTS': len(stripes),
        'BLOCK_M': BLOCK_M,
        'BLOCK_N': min(BLOCK_M, _MOST_WIDE) if is_narrow else BLOCK_M,
        'BLOCK_D': tile_side(d, 128),
        'num_stages': 1 if is_narrow else 2,  # more would take registers
    }
    return _Plan(
        grid=(B * sum(pieces),),
        pieces=pieces,
        sizes=(*sizes, *stripes[0], *stripes[-1]),
        is_whole=most <= BLOCK_M,
        tiles=tiles,
    )
