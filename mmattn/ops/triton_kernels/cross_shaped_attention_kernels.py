"""Attention inside the stripes of a map, with the convolution of the values.

A program holds some queries of one head in one stripe. The stripes of both
orientations share a launch: the first half of the heads takes the vertical
ones. Where a token of a stripe lies follows from its number; what lies beside
the map is a key and a value of zeros, as the padding that it stands for. The
convolution reads the neighbours of the queries while they are in the caches.

Axes: B images, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, N tokens of a stripe.
"""

import triton
import triton.language as tl

from .device_functions import LOG2_E, dot

# Another map must not compile a kernel again.
_SIZES = (
    *('height', 'width', 'heads', 'pieces', 'first_pieces'),
    *('first_height', 'first_width', 'second_height', 'second_width'),
)


@triton.jit
def _blocks(height, width, BLOCK_M: tl.constexpr):
    """Blocks of queries of a stripe."""
    return tl.cdiv(height * width, BLOCK_M)


@triton.jit
def _tile(x, row, column, inside, x_h, x_w, CHANNELS: tl.constexpr,
          BLOCK_D: tl.constexpr):  # fmt: skip
    """Gather ``(tokens, BLOCK_D)`` of the map, zeros beside it."""
    d = tl.arange(0, BLOCK_D)
    places = row.to(tl.int64) * x_h + column.to(tl.int64) * x_w
    mask = inside[:, None] & (d < CHANNELS)[None]
    return tl.load(x + places[:, None] + d[None], mask=mask, other=0.0)


@triton.jit
def _is_on(row, column, height, width):
    is_row = (row >= 0) & (row < height)
    return is_row & (column >= 0) & (column < width)


@triton.jit(do_not_specialize=_SIZES)
def attend_stripes(
    qkv,  # (B, H, W, 3 * C)
    taps,  # (9, C), of the convolution
    bias,  # (C, )
    out,  # (B, H, W, C)
    qkv_b,
    qkv_h,
    qkv_w,
    height,
    width,
    heads,
    pieces,  # programs of an image
    first_pieces,  # of the first half of the heads
    first_height,  # rows of a stripe
    first_width,
    second_height,
    second_width,
    scale,
    CHANNELS: tl.constexpr,
    PARTS: tl.constexpr,  # of the heads: as many as orientations
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Some queries of one head in one stripe."""
    image = (tl.program_id(0) // pieces).to(tl.int64)
    piece = tl.program_id(0) % pieces
    is_second = piece >= first_pieces
    piece -= tl.where(is_second, first_pieces, 0)
    high = tl.where(is_second, second_height, first_height)
    wide = tl.where(is_second, second_width, first_width)
    share = heads // PARTS
    head = piece % share + tl.where(is_second, share, 0)
    blocks = _blocks(high, wide, BLOCK_M)
    block = piece // share % blocks
    stripe = piece // share // blocks
    down, across = tl.cdiv(height, high), tl.cdiv(width, wide)
    # Of the padding, half lies before the map, rounded down.
    top = stripe // across * high - (down * high - height) // 2
    left = stripe % across * wide - (across * wide - width) // 2

    step = heads * CHANNELS
    q = qkv + image * qkv_b + head * CHANNELS
    k = q + step
    v = k + step
    count = high * wide
    slot = block * BLOCK_M + tl.arange(0, BLOCK_M)
    row, column = slot // wide, slot % wide  # within the stripe
    held = slot < count
    held &= _is_on(top + row, left + column, height, width)
    queries = _tile(
        q, top + row, left + column, held, qkv_h, qkv_w, CHANNELS, BLOCK_D
    )
    peak = tl.full((BLOCK_M,), float('-inf'), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for begin in range(0, count, BLOCK_N):
        place = begin + tl.arange(0, BLOCK_N)
        y, z = top + place // wide, left + place % wide
        seen = place < count
        inside = seen & _is_on(y, z, height, width)
        keys = _tile(k, y, z, inside, qkv_h, qkv_w, CHANNELS, BLOCK_D)
        values = _tile(v, y, z, inside, qkv_h, qkv_w, CHANNELS, BLOCK_D)
        scores = dot(queries, tl.trans(keys)) * (scale * LOG2_E)
        scores = tl.where(seen[None], scores, float('-inf'))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weights, 1)
        mixed *= shrink[:, None]
        mixed += dot(weights.to(values.dtype), values)
        peak = higher
    # Summed apart: a sum with the above would move each tile to where the
    # matrix product has left it.
    local = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    d = tl.arange(0, BLOCK_D)
    is_channel = d < CHANNELS
    taps += head * CHANNELS + d
    for tap in tl.static_range(9):
        y, z = row + tap // 3 - 1, column + tap % 3 - 1
        inside = held & _is_on(y, z, high, wide)
        y, z = top + y, left + z
        inside &= _is_on(y, z, height, width)
        near = _tile(v, y, z, inside, qkv_h, qkv_w, CHANNELS, BLOCK_D)
        weight = tl.load(taps + tap * step, is_channel, 0.0).to(tl.float32)
        local += near.to(tl.float32) * weight[None]
    if HAS_BIAS:
        offset = tl.load(bias + head * CHANNELS + d, is_channel, 0.0)
        local += offset.to(tl.float32)[None]
    mixed = mixed / total[:, None] + local
    places = (image * height + top + row) * width + left + column
    mask = held[:, None] & is_channel[None]
    out += head * CHANNELS
    tl.store(
        out + places[:, None] * step + d[None],
        mixed.to(out.dtype.element_ty),
        mask,
    )
