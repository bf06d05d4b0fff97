"""Depthwise convolutions with another kernel size for each head.

One launch convolves all heads, each with a loop over its own kernel, and
interleaves them: a program convolves the same channels of all heads.

Axes: B images, H W rows and columns of the map, h heads, c channels of a head,
s_i side of head i, T taps of all heads, P positions of a program.
"""

import triton
import triton.language as tl

# Maps of another size must not recompile a kernel.
_SIZES = ('height', 'width')
_SIZES_WEIGHTS = (*_SIZES, 'rows', 'share')


@triton.jit
def positions(height, width, BLOCK_P: tl.constexpr):
    """Image, row and column of a program's positions, and their mask."""
    across = tl.cdiv(height * width, BLOCK_P)
    image = (tl.program_id(0) // across).to(tl.int64)
    place = tl.program_id(0) % across * BLOCK_P + tl.arange(0, BLOCK_P)
    return image, place // width, place % width, place < height * width


@triton.jit
def add_taps(
    total,  # (P, c)
    x,  # of one image, from the first channel of one head
    taps,  # (T, c)
    side,
    first,  # tap of the head
    row, column, channel, is_channel,
    x_h, x_w,
    height, width, channels,
    IS_FLIPPED: tl.constexpr,
):  # fmt: skip
    """Add the convolution of one head."""
    places = row.to(tl.int64) * x_h + column.to(tl.int64) * x_w
    x += places[:, None] + channel[None]
    taps += first * channels + channel
    for i in range(side):
        y = row + i - side // 2
        is_row = (y >= 0) & (y < height)
        for j in range(side):
            source = column + j - side // 2
            inside = is_row & (source >= 0) & (source < width)
            step = (i - side // 2).to(tl.int64) * x_h
            step += (j - side // 2).to(tl.int64) * x_w
            mask = inside[:, None] & is_channel[None]
            values = tl.load(x + step, mask, 0.0).to(tl.float32)
            tap = i * side + j
            if IS_FLIPPED:
                tap = side * side - 1 - tap
            weight = tl.load(taps + tap * channels, is_channel, 0.0)
            total += values * weight.to(tl.float32)[None]
    return total


@triton.jit(do_not_specialize=_SIZES)
def convolve(
    x,  # (B, H, W, h * c)
    taps,  # (T, c)
    bias,  # (h, c)
    sides,  # (2, h), side and first tap of each head
    out,  # (B, H, W, c * h), regrouped
    x_b, x_h, x_w,
    height, width, channels,
    HEADS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Some positions of one image, some channels of all heads."""
    image, row, column, is_place = positions(height, width, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    heads = tl.arange(0, BLOCK_H)
    total = tl.zeros((BLOCK_P, BLOCK_C, BLOCK_H), tl.float32)
    x += image * x_b
    for head in range(HEADS):
        start = tl.load(bias + head * channels + channel, is_channel, 0.0)
        found = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
        found += start.to(tl.float32)[None]
        found = add_taps(
            found, x + head * channels, taps,
            tl.load(sides + head), tl.load(sides + HEADS + head),
            row, column, channel, is_channel, x_h, x_w,
            height, width, channels, False,
        )  # fmt: skip
        is_head = (heads == head)[None, None]
        total = tl.where(is_head, found[:, :, None], total)
    regrouped = channel[:, None] * HEADS + heads[None]
    mask = is_channel[:, None] & (heads < HEADS)[None]
    put(out, total, image, row, column, is_place, regrouped, mask,
        height, width, channels * HEADS)  # fmt: skip


@triton.jit
def put(
    out, total, image, row, column, is_place, channel, is_channel,
    height, width, channels,
):  # fmt: skip
    """Store ``(P, c, h)``."""
    place = ((image * height + row) * width + column) * channels
    place = place[:, None, None] + channel[None]
    mask = is_place[:, None, None] & is_channel[None]
    tl.store(out + place, total.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=_SIZES)
def convolve_backward(
    grad,  # (B, H, W, h * c)
    taps, sides,
    dx,  # (B, H, W, h * c)
    height, width, channels,
    HEADS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient of some positions of one image, some channels of one head."""
    image, row, column, is_place = positions(height, width, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    head = tl.program_id(2)
    step = HEADS * channels
    here = image * height * width * step + head * channels
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    total = add_taps(
        total, grad + here, taps,
        tl.load(sides + head), tl.load(sides + HEADS + head),
        row, column, channel, is_channel, width * step, step,
        height, width, channels, True,
    )  # fmt: skip
    place = (row.to(tl.int64) * width + column)[:, None] * step + channel[None]
    mask = is_place[:, None] & is_channel[None]
    tl.store(dx + here + place, total.to(dx.dtype.element_ty), mask)


@triton.jit(do_not_specialize=_SIZES_WEIGHTS)
def convolve_weights(
    x,  # (B, H, W, h * c)
    grad,  # (B, H, W, h * c)
    tap_rows,  # (4, sum of s_i): head, side, first tap, number in its head
    tap_sums,  # (programs, T, c)
    bias_sums,  # (programs, h, c)
    x_b, x_h, x_w,
    height, width,
    rows,  # of all maps
    share,  # rows of a program
    heads, channels, num_tap_rows, num_taps,
    BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Gradient of one row of taps from ``share`` rows of maps."""
    program = tl.program_id(0).to(tl.int64)
    tap_row = tl.program_id(1)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    head = tl.load(tap_rows + tap_row)
    side = tl.load(tap_rows + num_tap_rows + tap_row)
    first = tl.load(tap_rows + 2 * num_tap_rows + tap_row)
    number = tl.load(tap_rows + 3 * num_tap_rows + tap_row)
    tap = tl.arange(0, BLOCK_S)
    # Columns of a tile are summed at the end, which synchronizes the warps.
    total = tl.zeros((BLOCK_S, BLOCK_W, BLOCK_C), tl.float32)
    bias_total = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    x += head * channels + channel[None, None]
    grad += head * channels + channel[None]
    last = tl.minimum((tl.program_id(0) + 1) * share, rows)
    for i in range(tl.program_id(0) * share, last):
        image = (i // height).to(tl.int64)
        row = i % height
        y = row + number - side // 2
        x_row = image * x_b + y.to(tl.int64) * x_h
        grad_row = (image * height + row) * width * heads * channels
        for begin in range(0, width, BLOCK_W):
            column = begin + tl.arange(0, BLOCK_W)
            place = (grad_row + column * heads * channels)[:, None]
            mask = (column < width)[:, None] & is_channel[None]
            grads = tl.load(grad + place, mask, 0.0).to(tl.float32)
            bias_total += grads
            source = column[None] + tap[:, None] - side // 2  # (S, W)
            inside = (source >= 0) & (source < width) & (tap < side)[:, None]
            inside &= (y >= 0) & (y < height)
            place = x_row + source.to(tl.int64) * x_w
            mask = inside[:, :, None] & is_channel[None, None]
            values = tl.load(x + place[:, :, None], mask, 0.0)
            total += values.to(tl.float32) * grads[None]
    place = (program * num_taps + first + tap)[:, None] * channels
    mask = (tap < side)[:, None] & is_channel[None]
    tl.store(tap_sums + place + channel[None], tl.sum(total, 1), mask)
    place = (program * heads + head) * channels + channel
    mask = is_channel & (number == 0)
    tl.store(bias_sums + place, tl.sum(bias_total, 0), mask)
