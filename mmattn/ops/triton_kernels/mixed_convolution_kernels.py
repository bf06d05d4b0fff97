"""Depthwise convolutions with another kernel size for each head.

One launch serves all heads, each with the loop that its side asks for. The
regrouping of the channels is a matter of strides: the result is written where
it belongs, and the gradient read from there.

Axes: B images, H W rows and columns of the map, h heads, c channels of a head,
s_i side of head i, T taps of all heads, sum of s_i squared.
"""

import triton
import triton.language as tl

# Another map must not compile a kernel again.
_SIZES = ('height', 'width')
_SIZES_WEIGHTS = (*_SIZES, 'rows', 'share')


@triton.jit
def add_taps(
    total,  # (W, c), of a piece of a row of the map
    x,  # of one image, from the first channel of one head
    taps,  # (T, c)
    side,
    first,  # tap of the head
    row,
    column,
    channel,
    is_channel,
    x_h,
    x_w,
    x_channel,
    height,
    width,
    channels,
    IS_FLIPPED: tl.constexpr,
):
    """Add the convolution of one head."""
    for i in range(side):
        y = row + i - side // 2
        for j in range(side):
            source = column + j - side // 2
            inside = (source >= 0) & (source < width)
            inside &= (y >= 0) & (y < height)
            mask = inside[:, None] & is_channel[None]
            place = (y * x_h + source * x_w)[:, None]
            place += (channel * x_channel)[None]
            values = tl.load(x + place, mask, 0.0).to(tl.float32)
            tap = i * side + j
            if IS_FLIPPED:
                tap = side * side - 1 - tap
            tap = (first + tap) * channels + channel
            weight = tl.load(taps + tap, is_channel, 0.0).to(tl.float32)
            total += values * weight[None]
    return total


@triton.jit(do_not_specialize=_SIZES)
def convolve(
    x,  # (B, H, W, *), a head's channels at its strides
    taps,  # (T, c)
    bias,  # (h, c)
    sides,  # (2, h), side and first tap of each head
    out,  # (B, H, W, *)
    x_b,
    x_h,
    x_w,
    x_head,
    x_channel,
    out_head,
    out_channel,
    height,
    width,
    heads,
    channels,
    HAS_BIAS: tl.constexpr,
    IS_FLIPPED: tl.constexpr,  # for the gradient of the input
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A piece of one row of the map, some channels of one head."""
    across = tl.cdiv(width, BLOCK_W)
    pid = tl.program_id(0)
    row = pid // across % height
    image = (pid // across // height).to(tl.int64)
    column = pid % across * BLOCK_W + tl.arange(0, BLOCK_W)
    head = tl.program_id(1)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    total = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    if HAS_BIAS:
        start = tl.load(bias + head * channels + channel, is_channel, 0.0)
        total += start.to(tl.float32)[None]
    total = add_taps(
        total,
        x + image * x_b + head * x_head,
        taps,
        tl.load(sides + head),
        tl.load(sides + heads + head),
        row,
        column,
        channel,
        is_channel,
        x_h,
        x_w,
        x_channel,
        height,
        width,
        channels,
        IS_FLIPPED,
    )
    out += ((image * height + row) * width) * heads * channels
    out += head * out_head
    place = (column * heads * channels)[:, None]
    place += (channel * out_channel)[None]
    mask = (column < width)[:, None] & is_channel[None]
    tl.store(out + place, total.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=_SIZES_WEIGHTS)
def convolve_weights(
    x,  # (B, H, W, h * c)
    grad,  # (B, H, W, c * h), regrouped
    tap_rows,  # (4, sum of s_i): head, side, first tap, number in its head
    tap_sums,  # (P, T, c)
    bias_sums,  # (P, h, c)
    x_b,
    x_h,
    x_w,
    grad_b,
    grad_h,
    grad_w,
    height,
    width,
    rows,  # of all maps
    share,  # rows of a program
    heads,
    channels,
    num_tap_rows,
    num_taps,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Gradient of one row of taps, of what ``share`` rows of maps give."""
    program = tl.program_id(0).to(tl.int64)
    tap_row = tl.program_id(1)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    head = tl.load(tap_rows + tap_row)
    side = tl.load(tap_rows + num_tap_rows + tap_row)
    first = tl.load(tap_rows + 2 * num_tap_rows + tap_row)
    number = tl.load(tap_rows + 3 * num_tap_rows + tap_row)
    taps = tl.arange(0, BLOCK_S)
    total = tl.zeros((BLOCK_S, BLOCK_C), tl.float32)
    bias_total = tl.zeros((BLOCK_C,), tl.float32)
    last = tl.minimum((tl.program_id(0) + 1) * share, rows)
    for i in range(tl.program_id(0) * share, last):
        image = (i // height).to(tl.int64)
        row = i % height
        y = row + number - side // 2
        for begin in range(0, width, BLOCK_W):
            column = begin + tl.arange(0, BLOCK_W)
            mask = (column < width)[:, None] & is_channel[None]
            place = image * grad_b + row * grad_h + column * grad_w
            place = place[:, None] + (channel * heads + head)[None]
            grads = tl.load(grad + place, mask, 0.0).to(tl.float32)
            bias_total += tl.sum(grads, 0)
            for j in range(side):
                source = column + j - side // 2
                inside = (source >= 0) & (source < width)
                inside &= (y >= 0) & (y < height)
                mask = inside[:, None] & is_channel[None]
                place = image * x_b + y * x_h + source * x_w
                place = place[:, None] + (head * channels + channel)[None]
                values = tl.load(x + place, mask, 0.0).to(tl.float32)
                found = tl.sum(grads * values, 0)
                total += tl.where((taps == j)[:, None], found[None], 0.0)
    place = (program * num_taps + first + taps)[:, None] * channels
    mask = (taps < side)[:, None] & is_channel[None]
    tl.store(tap_sums + place + channel[None], total, mask)
    place = (program * heads + head) * channels + channel
    tl.store(bias_sums + place, bias_total, is_channel & (number == 0))
