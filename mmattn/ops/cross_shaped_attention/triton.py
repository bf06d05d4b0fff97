"""Cross-shaped attention in Triton: both orientations share a launch.

Axes: B images, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, s width of a stripe.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _triton
from .._triton import ceil_div, on_device_of, tile_side, with_unit_stride
from ..custom_op import empty_like_values
from .api import ARGUMENTS
from .stripes import stripe_sizes

# Most tokens of a tile; wide float32 rows need more registers.
_MOST_TOKENS, _MOST_WIDE = 64, 32
_WIDE = 128  # bytes of a row, above which it counts as wide


def why_not(qkv: Tensor, num_heads: int, *args) -> str | None:
    channels = qkv.shape[-1] // (3 * num_heads)
    return _triton.why_not(qkv) or _triton.why_not_channels(channels)


def forward(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    lepe_weight: Tensor,
    lepe_bias: Tensor | None,
    scale: float,
) -> list[Tensor]:
    """The result and, for the backward pass, each query's log-sum-exp.

    The latter is ``(B, h, H, W)`` float32, to base 2.
    """
    from .kernels import attend_stripes

    qkv = with_unit_stride(qkv)
    out, lse = empty(qkv, num_heads)
    if not out.numel():
        return [out, lse]
    plan = _plan(qkv, num_heads, stripe_width)
    taps = _taps(lepe_weight)
    with on_device_of(qkv):
        attend_stripes[plan.grid](
            *(qkv, taps, taps if lepe_bias is None else lepe_bias),
            *(out, lse),
            *qkv.stride()[:3],
            *plan.sizes,
            scale,
            HAS_BIAS=lepe_bias is not None,
            IS_WHOLE=plan.is_whole,
            **plan.tiles,
        )
    return [out, lse]


def backward(
    grad: Tensor,
    kept: Sequence[Tensor],
    wanted: Sequence[bool],
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    lepe_weight: Tensor,
    lepe_bias: Tensor | None,
    scale: float,
) -> list[Tensor | None]:
    from .kernels import (
        SUMS,
        attend_stripes_backward_keys,
        attend_stripes_backward_queries,
    )

    (lse,), qkv = kept, with_unit_stride(qkv)
    dqkv = qkv.new_empty(qkv.shape)
    if not grad.numel():
        dbias = None if lepe_bias is None else torch.zeros_like(lepe_bias)
        return [dqkv, torch.zeros_like(lepe_weight), dbias]
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
            *(qkv, _taps(lepe_weight), grad, lse, means, dqkv, sums),
            *layout,
            IS_WHOLE=plan.is_whole,
            **plan.tiles,
        )
    # Programs of a head are as many apart as its part has heads.
    parts = sums.split(plan.pieces, 1)
    share = num_heads // len(parts)
    totals = [x.unflatten(1, (-1, share)).sum((0, 1)) for x in parts]
    total = torch.cat(totals).transpose(1, 2).flatten(0, 1)  # (C, SUMS)
    dweight = total[:, :-1].reshape(lepe_weight.shape).to(lepe_weight.dtype)
    if lepe_bias is None:
        return [dqkv, dweight, None]
    return [dqkv, dweight, total[:, -1].to(lepe_bias.dtype, copy=True)]


def empty(qkv: Tensor, num_heads: int, *args) -> list[Tensor]:
    """Uninitialized results of :func:`forward`."""
    B, H, W, _ = qkv.shape
    lse = qkv.new_empty(B, num_heads, H, W, dtype=torch.float32)
    return [*empty_like_values(qkv), lse]


def _taps(lepe_weight: Tensor) -> Tensor:
    """The kernels with channels last, ``(9, C)``."""
    return lepe_weight.flatten(1).mT.contiguous()


class _Plan(NamedTuple):
    """A launch, as the kernels take it.

    Attributes:
        grid: All programs.
        pieces: Programs of an image, of each part of the heads.
        sizes: Of the map, of the launch and of the stripes.
        is_whole: Whether a program has a whole stripe.
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
    # The backward pass needs more registers: its tiles have a narrow side.
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


_triton.register_kernel(
    'cross_shaped_attention',
    ARGUMENTS,
    forward,
    backward,
    why_not,
    empty=empty,
)
