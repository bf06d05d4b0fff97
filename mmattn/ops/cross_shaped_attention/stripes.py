"""The stripes of a map: split, attend, convolve, merge.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, n stripes, N tokens of a stripe.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tracing import without_autocast
from ..windows import Size, padded_size


def stripe_sizes(size: Size, stripe_width: int | None) -> list[Size]:
    """Height and width of the stripes of each orientation, or of the map."""
    H, W = size
    if stripe_width is None:
        return [(H, W)]
    return [(H, stripe_width), (stripe_width, W)]


def even_padding(size: Size, stripe: Size) -> tuple[int, int, int, int]:
    """Padding to whole stripes: left, right, top, bottom."""
    rows, columns = [
        full - side for full, side in zip(padded_size(size, stripe), size)
    ]
    left, top = columns // 2, rows // 2
    return left, columns - left, top, rows - top


def attend_in_stripes(
    attend: Callable[..., Tensor],
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    weight: Tensor,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Attention of both orientations, with LePE.

    Args:
        attend: ``plain_attention`` or ``fused_attention``.
        qkv, num_heads, stripe_width, weight, bias, scale: Those of the
            operation.
    """
    B, H, W, channels = qkv.shape
    sizes = stripe_sizes((H, W), stripe_width)
    h, d = num_heads // len(sizes), channels // (3 * num_heads)
    weights = weight.to(qkv.dtype).split(h * d)
    biases = [None, None]
    if bias is not None:
        biases = bias.to(qkv.dtype).split(h * d)
    # Each orientation has its part of the heads.
    parts = qkv.reshape(B, H, W, 3, len(sizes), h * d).unbind(4)
    outs = []
    for part, (high, wide), weight, bias in zip(parts, sizes, weights, biases):
        left, right, top, bottom = even_padding((H, W), (high, wide))
        part = F.pad(part, (0, 0, 0, 0, left, right, top, bottom))
        rows, columns = part.shape[1] // high, part.shape[2] // wide
        n = rows * columns
        part = part.reshape(B, rows, high, columns, wide, 3, h, d)
        part = part.permute(5, 0, 1, 3, 6, 2, 4, 7)
        q, k, v = part.reshape(3, B * n, h, high * wide, d)
        out = attend(q, k, v, None, scale)
        out, v = [x.mT.reshape(B * n, h * d, high, wide) for x in (out, v)]
        with without_autocast(qkv):
            out = out + F.conv2d(v, weight, bias, padding=1, groups=h * d)
        out = out.view(B, rows, columns, h * d, high, wide)
        out = out.permute(0, 1, 4, 2, 5, 3)
        out = out.reshape(B, rows * high, columns * wide, h * d)
        outs.append(out[:, top : top + H, left : left + W])
    return torch.cat(outs, dim=-1)
