"""Custom operator of the attention inside stripes.

Axes: B images, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, s width of a stripe.
"""

from torch import Tensor

from ..cross_shaped_attention import cross_shaped_attention as attend
from ..operators import define_operator, empty_values
from .cross_shaped_attention_kernels import attend_stripes
from .device_functions import (
    ceil_div,
    on_device_of,
    tile_side,
    with_unit_stride,
)

# Of a tile. Wide float32 rows leave no registers for more.
_MOST_QUERIES, _MOST_WIDE = 64, 32
_MOST_KEYS = 64
_WIDE = 128  # bytes of a row, from which on it counts as wide


def _attend_stripes(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    local_weight: Tensor,
    local_bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Launch the kernel, for stripes of both orientations at once."""
    qkv = with_unit_stride(qkv)
    out = empty_values(qkv)
    if not out.numel():
        return out
    B, H, W, _ = qkv.shape
    s = stripe_width
    stripes = [(H, W)] if s is None else [(H, s), (s, W)]
    d = out.shape[-1] // num_heads
    is_wide = d * qkv.element_size() > _WIDE
    most = max(high * wide for high, wide in stripes)
    tiles = {
        'BLOCK_M': tile_side(most, _MOST_WIDE if is_wide else _MOST_QUERIES),
        'BLOCK_N': tile_side(most, _MOST_WIDE if is_wide else _MOST_KEYS),
        'BLOCK_D': tile_side(d, 128),
    }
    share = num_heads // len(stripes)
    pieces = [
        share
        * ceil_div(H, high)
        * ceil_div(W, wide)
        * ceil_div(high * wide, tiles['BLOCK_M'])
        for high, wide in stripes
    ]
    taps = local_weight.flatten(1).mT.contiguous()  # (9, C)
    with on_device_of(qkv):
        attend_stripes[B * sum(pieces),](
            *(qkv, taps, taps if local_bias is None else local_bias, out),
            *qkv.stride()[:3],
            *(H, W, num_heads, sum(pieces), pieces[0]),
            *(*stripes[0], *stripes[-1]),
            scale,
            CHANNELS=d,
            PARTS=len(stripes),
            HAS_BIAS=local_bias is not None,
            **tiles,
            num_stages=2,  # few blocks of keys: no more is worth waiting for
        )
    return out


def _differentiable(*args) -> Tensor:
    return attend(*args, impl='sdpa')


cross_shaped_attention = define_operator(
    'cross_shaped_attention',
    'Tensor qkv, int num_heads, int? stripe_width, Tensor local_weight, '
    'Tensor? local_bias, float scale',
    _attend_stripes,
    differentiable=_differentiable,
)
