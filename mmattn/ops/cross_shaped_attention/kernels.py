"""Attention inside the stripes of a map, with the convolution of the values.

A program has some tokens of one head in one stripe. The stripes of both
orientations share a launch: the first half of the heads has the vertical ones.
Positions are computed from token numbers; tokens outside of the map are keys
and values of zeros, the padding. The convolution reads the neighbors of the
tokens while they are in the caches.

The backward pass recomputes the weights from their log-sum-exp. If a stripe
fits a program, it takes one launch, else two: the first, for blocks of
queries, stores the mean gradient of each query for the second, for blocks of
keys. The latter also computes partial gradients of the convolution's kernel;
no addition is atomic.

Axes: B images, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, N tokens of a stripe, P programs.
"""

import triton
import triton.language as tl

from .._triton.device import LOG2_E, dot, load_rows, store_rows

# Maps of another size must not recompile a kernel.
_SIZES = (
    *('height', 'width', 'heads', 'pieces', 'first_pieces'),
    *('first_height', 'first_width', 'second_height', 'second_width'),
)

_TAPS = tl.constexpr(9)  # of the convolution, row by row
SUMS = tl.constexpr(10)  # of a channel: of the taps and of the bias
_BLOCK_SUMS = tl.constexpr(16)


@triton.jit
def _piece(
    height, width, heads, pieces, first_pieces,
    first_height, first_width, second_height, second_width,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The part of a program.

    Returns:
        The image, the head, the first token within the stripe, rows and
        columns of the stripe, and its first row and column on the map.
    """
    image = (tl.program_id(0) // pieces).to(tl.int64)
    piece = tl.program_id(0) % pieces
    is_second = piece >= first_pieces
    piece -= tl.where(is_second, first_pieces, 0)
    high = tl.where(is_second, second_height, first_height)
    wide = tl.where(is_second, second_width, first_width)
    share = heads // PARTS
    head = piece % share + tl.where(is_second, share, 0)
    blocks = tl.cdiv(high * wide, BLOCK_M)
    start = piece // share % blocks * BLOCK_M
    stripe = piece // share // blocks
    down, across = tl.cdiv(height, high), tl.cdiv(width, wide)
    # Half of the padding, rounded down, is before the map.
    top = stripe // across * high - (down * high - height) // 2
    left = stripe % across * wide - (across * wide - width) // 2
    return image, head, start, high, wide, top, left


@triton.jit
def _is_in(row, column, top, left, high, wide):
    is_row = (row >= top) & (row < top + high)
    return is_row & (column >= left) & (column < left + wide)


@triton.jit
def _places(
    start, high, wide, top, left, height, width, BLOCK: tl.constexpr
):  # fmt: skip
    """Positions of some tokens of a stripe.

    Returns:
        Row and column on the map, and masks: whether the token is in the
        stripe, and whether it is also on the map, not padding.
    """
    slot = start + tl.arange(0, BLOCK)
    row, column = top + slot // wide, left + slot % wide
    seen = slot < high * wide
    return row, column, seen, seen & _is_in(row, column, 0, 0, height, width)


@triton.jit
def _rows(row, column, x_h, x_w):
    """Memory offsets of tokens."""
    return row.to(tl.int64) * x_h + column.to(tl.int64) * x_w


@triton.jit
def _neighbors(
    x, row, column, down, across, inside,
    high, wide, top, left, height, width, x_h, x_w,
    CHANNELS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Load tokens some rows ``down`` and columns ``across`` in a stripe."""
    row += down
    column += across
    inside &= _is_in(row, column, top, left, high, wide)
    inside &= _is_in(row, column, 0, 0, height, width)
    rows = _rows(row, column, x_h, x_w)
    return load_rows(x, rows, inside, CHANNELS, BLOCK_D).to(tl.float32)


@triton.jit(do_not_specialize=_SIZES)
def attend_stripes(
    qkv,  # (B, H, W, 3 * C)
    taps,  # (9, C), of the convolution
    bias,  # (C, )
    out,  # (B, H, W, C)
    lse,  # (B, h, H, W), logarithm to base 2 of sums
    qkv_b, qkv_h, qkv_w,
    height, width, heads,
    pieces,  # programs of an image
    first_pieces,  # of the first half of the heads
    first_height,  # rows of a stripe
    first_width, second_height, second_width, scale,
    CHANNELS: tl.constexpr,
    PARTS: tl.constexpr,  # of the heads: as many as orientations
    HAS_BIAS: tl.constexpr,
    IS_WHOLE: tl.constexpr,  # a program has a whole stripe
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Some queries of one head in one stripe."""
    image, head, start, high, wide, top, left = _piece(
        height, width, heads, pieces, first_pieces, first_height, first_width,
        second_height, second_width, PARTS, BLOCK_M,
    )  # fmt: skip
    step = heads * CHANNELS
    q = qkv + image * qkv_b + head * CHANNELS
    k = q + step
    v = k + step
    row, column, _, held = _places(
        start, high, wide, top, left, height, width, BLOCK_M
    )
    rows = _rows(row, column, qkv_h, qkv_w)
    queries = load_rows(q, rows, held, CHANNELS, BLOCK_D)
    peak = tl.full((BLOCK_M,), float('-inf'), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    stop = BLOCK_M if IS_WHOLE else high * wide  # one block
    for begin in range(0, stop, BLOCK_N):
        y, z, seen, inside = _places(
            begin, high, wide, top, left, height, width, BLOCK_N
        )
        places = _rows(y, z, qkv_h, qkv_w)
        keys = load_rows(k, places, inside, CHANNELS, BLOCK_D)
        values = load_rows(v, places, inside, CHANNELS, BLOCK_D)
        scores = dot(queries, tl.trans(keys)) * (scale * LOG2_E)
        scores = tl.where(seen[None], scores, float('-inf'))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weights, 1)
        mixed *= shrink[:, None]
        mixed += dot(weights.to(values.dtype), values)
        peak = higher
    # Summed separately: adding to the above would convert each tile to the
    # layout of the matrix product.
    local = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    d = tl.arange(0, BLOCK_D)
    is_channel = d < CHANNELS
    taps += head * CHANNELS + d
    for tap in tl.static_range(_TAPS):
        near = _neighbors(
            v, row, column, tap // 3 - 1, tap % 3 - 1, held,
            high, wide, top, left, height, width, qkv_h, qkv_w,
            CHANNELS, BLOCK_D,
        )  # fmt: skip
        weight = tl.load(taps + tap * step, is_channel, 0.0).to(tl.float32)
        local += near * weight[None]
    if HAS_BIAS:
        offset = tl.load(bias + head * CHANNELS + d, is_channel, 0.0)
        local += offset.to(tl.float32)[None]
    mixed = mixed / total[:, None] + local
    rows = ((image * height + row) * width + column) * step
    store_rows(out + head * CHANNELS, rows, held, mixed, CHANNELS, BLOCK_D)
    lse += (image * heads + head) * height * width
    tl.store(lse + row * width + column, peak + tl.log2(total), held)


@triton.jit(do_not_specialize=_SIZES)
def attend_stripes_backward_queries(
    qkv,
    grad,  # (B, H, W, C), of the result
    lse,
    means,  # (B, h, H, W), of the slopes of a query's weights
    dqkv,  # (B, H, W, 3 * C)
    qkv_b, qkv_h, qkv_w, grad_b, grad_h, grad_w,
    height, width, heads, pieces, first_pieces, first_height, first_width,
    second_height, second_width, scale,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of some queries of one head in one stripe.

    The mean gradient of a query is known, and subtracted, at the end. It is
    computed from the weights, not from the result, which is rounded to its
    dtype and includes the convolution.
    """
    image, head, start, high, wide, top, left = _piece(
        height, width, heads, pieces, first_pieces, first_height, first_width,
        second_height, second_width, PARTS, BLOCK_M,
    )  # fmt: skip
    step = heads * CHANNELS
    q = qkv + image * qkv_b + head * CHANNELS
    k = q + step
    v = k + step
    grad += image * grad_b + head * CHANNELS
    row, column, _, held = _places(
        start, high, wide, top, left, height, width, BLOCK_M
    )
    rows = _rows(row, column, qkv_h, qkv_w)
    queries = load_rows(q, rows, held, CHANNELS, BLOCK_D)
    own = load_rows(v, rows, held, CHANNELS, BLOCK_D)
    rows = _rows(row, column, grad_h, grad_w)
    grads = load_rows(grad, rows, held, CHANNELS, BLOCK_D)
    # Subtract the mean at once: in half precision, gradients that are large
    # beside their differences would lose these.
    common = tl.sum(dot(grads, tl.trans(own)), 1)
    common /= tl.maximum(tl.sum(held.to(tl.int32), 0), 1)
    spots = (image * heads + head) * height * width + row * width + column
    norm = tl.load(lse + spots, held, 0.0)
    mean = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for begin in range(0, high * wide, BLOCK_N):
        y, z, seen, inside = _places(
            begin, high, wide, top, left, height, width, BLOCK_N
        )
        places = _rows(y, z, qkv_h, qkv_w)
        keys = load_rows(k, places, inside, CHANNELS, BLOCK_D)
        values = load_rows(v, places, inside, CHANNELS, BLOCK_D)
        scores = dot(queries, tl.trans(keys)) * (scale * LOG2_E)
        weights = tl.exp2(scores - norm[:, None])
        weights = tl.where(seen[None], weights, 0.0)
        slope = weights * (dot(grads, tl.trans(values)) - common[:, None])
        mean += tl.sum(slope, 1)
        mixed += dot(weights.to(keys.dtype), keys)
        total += dot(slope.to(keys.dtype), keys)
    tl.store(means + spots, common + mean, held)
    dq = (total - mean[:, None] * mixed) * scale
    rows = ((image * height + row) * width + column) * 3 * step
    store_rows(dqkv + head * CHANNELS, rows, held, dq, CHANNELS, BLOCK_D)


@triton.jit(do_not_specialize=_SIZES)
def attend_stripes_backward_keys(
    qkv, taps, grad, lse, means, dqkv,
    sums,  # (P, SUMS, d), of the taps and of the bias
    qkv_b, qkv_h, qkv_w, grad_b, grad_h, grad_w,
    height, width, heads, pieces, first_pieces, first_height, first_width,
    second_height, second_width, scale,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr,
    IS_WHOLE: tl.constexpr,  # there are no means
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of some keys of one head in one stripe and of their values.

    Also of the queries, if these are the only keys of the stripe.
    """
    image, head, start, high, wide, top, left = _piece(
        height, width, heads, pieces, first_pieces, first_height, first_width,
        second_height, second_width, PARTS, BLOCK_M,
    )  # fmt: skip
    step = heads * CHANNELS
    q = qkv + image * qkv_b + head * CHANNELS
    k = q + step
    v = k + step
    grad += image * grad_b + head * CHANNELS
    dqkv += image * height * width * 3 * step + head * CHANNELS
    lse += (image * heads + head) * height * width
    means += (image * heads + head) * height * width
    row, column, _, held = _places(
        start, high, wide, top, left, height, width, BLOCK_M
    )
    rows = _rows(row, column, qkv_h, qkv_w)
    keys = load_rows(k, rows, held, CHANNELS, BLOCK_D)
    values = load_rows(v, rows, held, CHANNELS, BLOCK_D)
    dk = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    dv = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    stop = BLOCK_M if IS_WHOLE else high * wide  # one block needs no loop
    for begin in range(0, stop, BLOCK_N):
        # Outside of the map queries and gradients are zero.
        y, z, seen, inside = _places(
            begin, high, wide, top, left, height, width, BLOCK_N
        )
        places = _rows(y, z, qkv_h, qkv_w)
        queries = load_rows(q, places, inside, CHANNELS, BLOCK_D)
        places = _rows(y, z, grad_h, grad_w)
        grads = load_rows(grad, places, inside, CHANNELS, BLOCK_D)
        norm = tl.load(lse + y * width + z, inside, 0.0)
        scores = dot(keys, tl.trans(queries)) * (scale * LOG2_E)
        weights = tl.exp2(scores - norm[None])  # key by query
        weights = tl.where(held[:, None], weights, 0.0)
        dv += dot(weights.to(grads.dtype), grads)
        slope = dot(values, tl.trans(grads))
        if IS_WHOLE:
            mean = tl.sum(weights * slope, 0)
        else:
            mean = tl.load(means + y * width + z, inside, 0.0)
        narrow = (weights * (slope - mean[None])).to(queries.dtype)
        dk += dot(narrow, queries)
        if IS_WHOLE:
            dq = dot(tl.trans(narrow), keys) * scale
            places = _rows(y, z, width * 3 * step, 3 * step)
            store_rows(dqkv, places, inside, dq, CHANNELS, BLOCK_D)
    places = _rows(row, column, width * 3 * step, 3 * step)
    store_rows(dqkv + step, places, held, dk * scale, CHANNELS, BLOCK_D)
    # Load again: the layout in registers differs from that of the products.
    rows = _rows(row, column, qkv_h, qkv_w)
    here = load_rows(v, rows, held, CHANNELS, BLOCK_D).to(tl.float32)
    local = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    found = tl.zeros((_BLOCK_SUMS, BLOCK_D), tl.float32)
    number = tl.arange(0, _BLOCK_SUMS)[:, None]
    d = tl.arange(0, BLOCK_D)
    is_channel = d < CHANNELS
    taps += head * CHANNELS + d
    for tap in tl.static_range(_TAPS):
        near = _neighbors(
            grad, row, column, 1 - tap // 3, 1 - tap % 3, held,
            high, wide, top, left, height, width, grad_h, grad_w,
            CHANNELS, BLOCK_D,
        )  # fmt: skip
        weight = tl.load(taps + tap * step, is_channel, 0.0).to(tl.float32)
        local += near * weight[None]
        of_tap = tl.sum(near * here, 0)[None]
        found = tl.where(number == tap, of_tap, found)
        if tap == _TAPS // 2:
            found = tl.where(number == _TAPS, tl.sum(near, 0)[None], found)
    dv += local
    store_rows(dqkv + 2 * step, places, held, dv, CHANNELS, BLOCK_D)
    sums += tl.program_id(0).to(tl.int64) * SUMS * CHANNELS
    mask = (number < SUMS) & is_channel[None]
    tl.store(sums + number * CHANNELS + d[None], found, mask)
