"""Attention inside windows, read from the map and written to it.

A program has a whole window of one head. It computes the positions of the
tokens and their regions of the rolled map: no map is rolled or split, and no
mask is stored.

The backward pass saves only its inputs and recomputes the weights of a window,
for all queries at once or, to save registers, for some at a time. A program
sums the bias gradient of many windows; one small sum over programs follows.
There are no atomic additions, so results are deterministic.

Axes: B images, H W rows and columns of the map, h heads, d channels of a head,
M window side, N = M * M tokens of a window, P programs of a head.
"""

import triton
import triton.language as tl

from .._triton.device import LOG2_E, dot, load_rows, store_rows

# Maps of another size must not recompile a kernel.
_SIZES = (
    *('height', 'width', 'across', 'windows', 'heads', 'shift'),
    *('images', 'share'),
)


@triton.jit
def _places(
    window, first, height, width, across, shift,
    SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Positions of tokens of a window on the map, from the ``first`` on.

    Returns:
        Row and column on the map, and whether the window has such a token.
    """
    number = first + tl.arange(0, BLOCK)
    row = window // across * SIDE + number // SIDE + shift
    column = window % across * SIDE + number % SIDE + shift
    row = tl.where(row < height, row, row - height)
    column = tl.where(column < width, column, column - width)
    return row.to(tl.int64), column.to(tl.int64), number < SIDE * SIDE


@triton.jit
def _sides(first, shift, SIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Side of the edges of a rolled map that each token is on.

    One bit for rows, one for columns. A third bit is for padding of the tile,
    which attends to itself so that its sums are not zero.
    """
    number = first + tl.arange(0, BLOCK)
    side = 2 * (number // SIDE >= SIDE - shift).to(tl.int32)
    side += (number % SIDE >= SIDE - shift).to(tl.int32)
    return tl.where(number < SIDE * SIDE, side, 4)


@triton.jit
def _edges(window, across, windows):
    """Bits that matter in a window: those of the edges that it contains."""
    is_last_row = window // across == windows // across - 1
    is_last_column = window % across == across - 1
    return 4 + 2 * is_last_row.to(tl.int32) + is_last_column.to(tl.int32)


@triton.jit
def _cells(
    first, tokens: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK: tl.constexpr
):
    """Offsets of the bias of pairs of tokens, and their mask."""
    i, j = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK)
    valid = (i < tokens)[:, None] & (j < tokens)[None]
    return i[:, None] * tokens + j[None], valid


@triton.jit
def _bias_tile(
    bias, first,
    HAS_BIAS: tl.constexpr, tokens: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The bias of the scores, to base 2."""
    if HAS_BIAS:
        cells, valid = _cells(first, tokens, BLOCK_M, BLOCK)
        tile = tl.load(bias + cells, mask=valid, other=0.0).to(tl.float32)
        return tile * LOG2_E
    else:
        return 0.0


@triton.jit
def _weights(queries, keys, bias, is_seen, scale):
    """Unnormalized softmax of a window, and its sums."""
    scores = dot(queries, tl.trans(keys)) * (scale * LOG2_E) + bias
    scores += tl.where(is_seen, 0.0, float('-inf'))  # keeps NaN and inf
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return weights, tl.sum(weights, 1)


@triton.jit(do_not_specialize=_SIZES)
def attend_windows(
    qkv,  # (B, H, W, 3 * C)
    bias,  # (h, N, N)
    out,  # (B, H, W, C)
    qkv_b, qkv_h, qkv_w,
    height, width,
    across,  # windows side by side
    windows,  # of an image
    heads, shift, images,
    share,  # windows of a program
    scale,
    CHANNELS: tl.constexpr, SIDE: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One head of ``share`` windows, one after the other."""
    head = tl.program_id(0) % heads
    program = tl.program_id(0) // heads
    step = heads * CHANNELS
    bias += head * SIDE * SIDE * SIDE * SIDE
    offsets = _bias_tile(bias, 0, HAS_BIAS, SIDE * SIDE, BLOCK, BLOCK)
    sides = _sides(0, shift, SIDE, BLOCK)
    last = tl.minimum((program + 1) * share, images * windows)
    for number in range(program * share, last):
        window = number % windows
        image = (number // windows).to(tl.int64)
        row, column, held = _places(
            window, 0, height, width, across, shift, SIDE, BLOCK
        )
        rows = row * qkv_h + column * qkv_w
        q = qkv + image * qkv_b + head * CHANNELS
        queries = load_rows(q, rows, held, CHANNELS, BLOCK_D)
        keys = load_rows(q + step, rows, held, CHANNELS, BLOCK_D)
        values = load_rows(q + 2 * step, rows, held, CHANNELS, BLOCK_D)
        seen = sides & _edges(window, across, windows)
        is_seen = seen[:, None] == seen[None]
        weights, total = _weights(queries, keys, offsets, is_seen, scale)
        mixed = dot(weights.to(values.dtype), values) / total[:, None]
        target = out + image * height * width * step + head * CHANNELS
        places = (row * width + column) * step
        store_rows(target, places, held, mixed, CHANNELS, BLOCK_D)


@triton.jit(do_not_specialize=_SIZES)
def attend_windows_backward(
    qkv, bias,
    grad,  # (B, H, W, C), of the result
    dqkv,  # (B, H, W, 3 * C)
    dbias,  # (P, h, N, N), zeros unless a program takes all queries at once
    qkv_b, qkv_h, qkv_w, grad_b, grad_h, grad_w,
    height, width, across, windows, heads, shift, images,
    share,  # windows of a program
    scale,
    CHANNELS: tl.constexpr, SIDE: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries at a time
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One head of ``share`` windows, one after the other."""
    head = tl.program_id(0) % heads
    program = tl.program_id(0) // heads
    step = heads * CHANNELS
    bias += head * SIDE * SIDE * SIDE * SIDE
    dbias += tl.program_id(0).to(tl.int64) * SIDE * SIDE * SIDE * SIDE
    IS_WHOLE: tl.constexpr = BLOCK_M == BLOCK
    bias_total = tl.zeros((BLOCK_M, BLOCK), tl.float32)
    if IS_WHOLE:
        offsets = _bias_tile(bias, 0, HAS_BIAS, SIDE * SIDE, BLOCK_M, BLOCK)
    sides = _sides(0, shift, SIDE, BLOCK)
    last = tl.minimum((program + 1) * share, images * windows)
    for number in range(program * share, last):
        window = number % windows
        image = (number // windows).to(tl.int64)
        row, column, held = _places(
            window, 0, height, width, across, shift, SIDE, BLOCK
        )
        rows = row * qkv_h + column * qkv_w
        q = qkv + image * qkv_b + head * CHANNELS
        keys = load_rows(q + step, rows, held, CHANNELS, BLOCK_D)
        values = load_rows(q + 2 * step, rows, held, CHANNELS, BLOCK_D)
        edges = _edges(window, across, windows)
        target = dqkv + image * height * width * 3 * step + head * CHANNELS
        spots = (row * width + column) * 3 * step
        dk = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        dv = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        for first in range(0, BLOCK, BLOCK_M):
            # Row, column, and whether the window has such a query.
            y, z, asked = _places(
                window, first, height, width, across, shift, SIDE, BLOCK_M
            )
            queries = load_rows(
                q, y * qkv_h + z * qkv_w, asked, CHANNELS, BLOCK_D
            )
            grads = load_rows(
                grad + image * grad_b + head * CHANNELS,
                y * grad_h + z * grad_w, asked, CHANNELS, BLOCK_D,
            )  # fmt: skip
            if not IS_WHOLE:
                offsets = _bias_tile(
                    bias, first, HAS_BIAS, SIDE * SIDE, BLOCK_M, BLOCK
                )
            of_queries = _sides(first, shift, SIDE, BLOCK_M) & edges
            is_seen = of_queries[:, None] == (sides & edges)[None]
            weights, total = _weights(queries, keys, offsets, is_seen, scale)
            weights /= total[:, None]
            # Store each gradient at once: the next needs registers.
            dv += dot(tl.trans(weights.to(grads.dtype)), grads)
            is_last = first + BLOCK_M == BLOCK
            if is_last:
                store_rows(
                    target + 2 * step, spots, held, dv, CHANNELS, BLOCK_D
                )
            slope = dot(grads, tl.trans(values))
            slope = weights * (slope - tl.sum(weights * slope, 1)[:, None])
            if HAS_BIAS and IS_WHOLE:
                bias_total += slope
            elif HAS_BIAS:
                cells, valid = _cells(first, SIDE * SIDE, BLOCK_M, BLOCK)
                before = tl.load(dbias + cells, valid, 0.0)
                tl.store(dbias + cells, before + slope, valid)
                tl.debug_barrier()  # another thread may read it next
            narrow = slope.to(queries.dtype)
            dq = dot(narrow, keys) * scale
            places = (y * width + z) * 3 * step
            store_rows(target, places, asked, dq, CHANNELS, BLOCK_D)
            dk += dot(tl.trans(narrow), queries) * scale
            if is_last:
                store_rows(target + step, spots, held, dk, CHANNELS, BLOCK_D)
    if HAS_BIAS and IS_WHOLE:
        cells, valid = _cells(0, SIDE * SIDE, BLOCK_M, BLOCK)
        tl.store(dbias + cells, bias_total, mask=valid)
