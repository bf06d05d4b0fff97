"""One level of balanced clustering: sorting every group halves it.

A program has a group. It reads the group's tokens once for the initial means,
once for every refinement and once for the ratios. It sorts keys of ratio and
place in one number: equal ratios keep their order. Nothing is gathered: a
level reads the features through the order of the previous level.

Several programs share a group that is too large for one, with one launch for
each pass: each program sums its tokens, and the next launch adds up the sums.
Programs then sort runs of the group, and one more launch merges up to 32 runs:
no two keys are equal, so the place of a key is the number of smaller keys.

The median alone would not do: the next level starts from the means of the
halves of a sorted group, and equal ratios keep their order on all levels.

Axes: B images, h heads, N tokens, d channels. A grid has the groups of all
images, then the parts of a group, then the heads.
"""

import triton
import triton.language as tl

from .._triton.device import group_bounds

# Maps of another size must not recompile a kernel.
_SIZES = ('num_tokens', 'level', 'iterations')
_SIZES_SHARED = ('num_tokens', 'level', 'step')
_SIZES_RUNS = ('num_tokens', 'level', 'length', 'merged_length')
_EPSILON = tl.constexpr(1e-12)  # below which no vector is normalised
_FLOAT_EPSILON = tl.constexpr(2.0**-23)
_FLOAT_MAX = tl.constexpr(3.4028234663852886e38)
_FLOAT_TINY = tl.constexpr(1.1754943508222875e-38)
_PLACES = tl.constexpr(2**32 - 1)  # the bits of a key that hold a place
_LAST_KEY = tl.constexpr(2**63 - 1)


@triton.jit
def _find_problem(level):
    """Image, head and problem of a program."""
    image = (tl.program_id(0) >> level).to(tl.int64)
    head = tl.program_id(2).to(tl.int64)
    return image, head, image * tl.num_programs(2) + head


@triton.jit
def _find_group(problem, num_tokens, level):
    """First place (over all problems) and size of a program's group."""
    group = tl.program_id(0) & ((1 << level) - 1)
    start, size = group_bounds(group, num_tokens, level)
    return problem * num_tokens + start, size


@triton.jit
def _find_tokens(order, slot, held, level):
    """Tokens in some places; at first in raster order."""
    token = tl.load(order + slot, mask=held & (level > 0), other=0)
    return tl.where(level > 0, token, slot)


@triton.jit
def _read_tokens(
    features, order, slot, end, row, scale, level,
    CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Scaled features of some tokens of a group, and their lengths."""
    held = slot < end
    token = _find_tokens(order, slot, held, level)
    d = tl.arange(0, BLOCK_D)
    mask = held[:, None] & (d < CHANNELS)[None]
    places = features + (token * row)[:, None] + d[None]
    tokens = tl.load(places, mask=mask, other=0.0).to(tl.float32) * scale
    return tokens, tl.sqrt(tl.sum(tokens * tokens, 1))


@triton.jit
def _normalize(vectors):
    """Normalize the sum of some vectors."""
    vector = tl.sum(vectors, 0)
    length = tl.sqrt(tl.sum(vector * vector, 0))
    return vector / tl.maximum(length, _EPSILON)


@triton.jit
def _similarities(tokens, lengths, first, second):
    """Cosines of the tokens with both centroids."""
    lengths = tl.maximum(lengths, _EPSILON)
    similar = tl.sum(tokens * first[None], 1) / lengths
    return similar, tl.sum(tokens * second[None], 1) / lengths


@triton.jit
def _assign(tokens, lengths, apart):
    """Soft assignment of each token to both centroids."""
    x = tl.sum(tokens * apart[None], 1) / tl.maximum(lengths, _EPSILON)
    smaller = tl.exp(-tl.abs(x))
    total = 1 + smaller
    to_first = tl.where(x < 0, smaller, 1.0) / total
    return to_first, tl.where(x < 0, 1.0, smaller) / total


@triton.jit
def _sum_tokens(
    features, order, begin, end,
    half,  # tokens of the group's first half
    row, scale, level,
    apart,  # difference of the centroids times temperature, at the start 0
    IS_START: tl.constexpr, CHANNELS: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sums of some tokens for both centroids, or at the start for both halves.

    Summed over the chunks only: to sum over the tokens of a chunk takes all
    warps to agree.
    """
    next_first = tl.zeros((CHUNK, BLOCK_D), tl.float32)
    next_second = tl.zeros((CHUNK, BLOCK_D), tl.float32)
    for place in range(begin, end, CHUNK):
        slot = place + tl.arange(0, CHUNK)
        tokens, lengths = _read_tokens(
            features, order, slot, end, row, scale, level, CHANNELS, BLOCK_D
        )
        to_first = (slot < half).to(tl.float32)
        to_second = 1 - to_first
        if not IS_START:
            to_first, to_second = _assign(tokens, lengths, apart)
        next_first += to_first[:, None] * tokens
        next_second += to_second[:, None] * tokens
    return next_first, next_second


@triton.jit
def _above_zero(x):
    """Clamp to at least the rounding of 1; NaN stays NaN."""
    return tl.where(x < _FLOAT_EPSILON, _FLOAT_EPSILON, x)


@triton.jit
def _write_keys(
    features, order, keys, begin, end, row, scale, level, first, second,
    CHANNELS: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A key for each token that sorts by ratio, then by place."""
    for place in range(begin, end, CHUNK):
        slot = place + tl.arange(0, CHUNK)
        tokens, lengths = _read_tokens(
            features, order, slot, end, row, scale, level, CHANNELS, BLOCK_D
        )
        to_first, to_second = _similarities(tokens, lengths, first, second)
        ratio = _above_zero(1 + to_first) / _above_zero(1 + to_second)
        ratio = tl.where(ratio == ratio, ratio, _FLOAT_MAX)
        # The bits of a positive number are in the order of the numbers.
        rank = ratio.to(tl.int32, bitcast=True).to(tl.int64)
        tl.store(keys + slot, (rank << 32) | slot, mask=slot < end)


@triton.jit
def _sort_keys(keys, slot, end):
    """Sort the program's keys and synchronize its warps."""
    tl.debug_barrier()
    found = tl.load(keys + slot, mask=slot < end, other=_LAST_KEY)
    tl.debug_barrier()
    return tl.sort(found)


@triton.jit
def _scale_of(peak):
    """Factor that scales a problem to the range of float32."""
    return 1 / tl.where(peak < _FLOAT_TINY, _FLOAT_TINY, peak)


@triton.jit(do_not_specialize=_SIZES)
def sort_groups(
    features,  # (B, h, N, d)
    peaks,  # (B, h), largest absolute value of each problem
    order,  # (B, h, N), unread at the first level
    sorted_order,  # (B, h, N)
    features_b, features_h, features_n,
    num_tokens, level, iterations, temperature,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sort one group of one problem by the ratio of its similarities."""
    image, head, problem = _find_problem(level)
    start, size = _find_group(problem, num_tokens, level)
    features += image * features_b + head * features_h
    order += start
    sorted_order += start
    scale = _scale_of(tl.load(peaks + problem))
    half = size - size // 2
    next_first, next_second = _sum_tokens(
        features, order, 0, size, half, features_n, scale, level, 0,
        True, CHANNELS, CHUNK, BLOCK_D,
    )  # fmt: skip
    first, second = _normalize(next_first), _normalize(next_second)
    for _ in range(iterations):
        apart = temperature * (first - second)
        next_first, next_second = _sum_tokens(
            features, order, 0, size, half, features_n, scale, level, apart,
            False, CHANNELS, CHUNK, BLOCK_D,
        )  # fmt: skip
        first, second = _normalize(next_first), _normalize(next_second)
    _write_keys(
        features, order, sorted_order, 0, size, features_n, scale,
        level, first, second, CHANNELS, CHUNK, BLOCK_D,
    )  # fmt: skip
    slot = tl.arange(0, BLOCK)
    held = slot < size
    place = _sort_keys(sorted_order, slot, size) & _PLACES
    token = _find_tokens(order, place, held, level)
    tl.store(sorted_order + slot, token, mask=held)


@triton.jit
def _find_sums(sums, step, CHANNELS: tl.constexpr, SHARES: tl.constexpr):
    """Sums of the shares of the program's group at a step."""
    row = (step * tl.num_programs(2) + tl.program_id(2)).to(tl.int64)
    row = row * tl.num_programs(0) + tl.program_id(0)
    return sums + row * SHARES * 2 * CHANNELS


@triton.jit
def _add_sums(sums, CHANNELS: tl.constexpr, SHARES: tl.constexpr,
              BLOCK_D: tl.constexpr):  # fmt: skip
    """Centroids of a group from the sums ``(SHARES, 2, d)``."""
    d = tl.arange(0, BLOCK_D)[None]
    sums += tl.arange(0, SHARES)[:, None] * 2 * CHANNELS + d
    first = tl.load(sums, mask=d < CHANNELS, other=0.0)
    second = tl.load(sums + CHANNELS, mask=d < CHANNELS, other=0.0)
    return _normalize(first), _normalize(second)


@triton.jit(do_not_specialize=_SIZES_SHARED)
def add_shares(
    features, peaks, order,
    sums,  # (steps, h, B * groups, SHARES, 2, d)
    features_b, features_h, features_n,
    num_tokens, level, step, temperature,
    CHANNELS: tl.constexpr, SHARES: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sum the tokens of a share of a group for both centroids."""
    image, head, problem = _find_problem(level)
    start, size = _find_group(problem, num_tokens, level)
    features += image * features_b + head * features_h
    scale = _scale_of(tl.load(peaks + problem))
    slots = tl.cdiv(tl.cdiv(size, SHARES), CHUNK) * CHUNK
    begin = tl.program_id(1) * slots
    end = tl.minimum(begin + slots, size)
    order += start
    half = size - size // 2
    if step == 0:
        next_first, next_second = _sum_tokens(
            features, order, begin, end, half, features_n, scale, level, 0,
            True, CHANNELS, CHUNK, BLOCK_D,
        )  # fmt: skip
    else:
        before = _find_sums(sums, step - 1, CHANNELS, SHARES)
        first, second = _add_sums(before, CHANNELS, SHARES, BLOCK_D)
        apart = temperature * (first - second)
        next_first, next_second = _sum_tokens(
            features, order, begin, end, half, features_n, scale, level, apart,
            False, CHANNELS, CHUNK, BLOCK_D,
        )  # fmt: skip
    d = tl.arange(0, BLOCK_D)
    sums = _find_sums(sums, step, CHANNELS, SHARES)
    sums += tl.program_id(1) * 2 * CHANNELS + d
    tl.store(sums, tl.sum(next_first, 0), mask=d < CHANNELS)
    tl.store(sums + CHANNELS, tl.sum(next_second, 0), mask=d < CHANNELS)


@triton.jit(do_not_specialize=_SIZES_SHARED)
def sort_runs(
    features, peaks, order, sums,
    keys,  # (B, h, N)
    features_b, features_h, features_n,
    num_tokens, level,
    step,  # behind the last
    CHANNELS: tl.constexpr, SHARES: tl.constexpr, BLOCK: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sort one run of a group, a block of tokens."""
    image, head, problem = _find_problem(level)
    start, size = _find_group(problem, num_tokens, level)
    features += image * features_b + head * features_h
    scale = _scale_of(tl.load(peaks + problem))
    sums = _find_sums(sums, step - 1, CHANNELS, SHARES)
    first, second = _add_sums(sums, CHANNELS, SHARES, BLOCK_D)
    begin = tl.program_id(1) * BLOCK
    end = tl.minimum(begin + BLOCK, size)
    keys += start
    _write_keys(
        features, order + start, keys, begin, end, features_n, scale,
        level, first, second, CHANNELS, CHUNK, BLOCK_D,
    )  # fmt: skip
    slot = begin + tl.arange(0, BLOCK)
    tl.store(keys + slot, _sort_keys(keys, slot, end), mask=slot < end)


@triton.jit
def _count_below(key, keys, begin, end, length):
    """Number of keys of a sorted run below each of some others."""
    below = begin + tl.zeros_like(key).to(tl.int32)
    step = length
    while step > 0:
        next_below = below + step
        fits = next_below <= end
        found = tl.load(keys + next_below - 1, mask=fits, other=_LAST_KEY)
        below = tl.where(found < key, next_below, below)
        step //= 2
    return below - begin


@triton.jit(do_not_specialize=_SIZES_RUNS)
def merge_runs(
    order, keys,
    merged,  # (B, h, N), keys, or tokens where all of a group is merged
    num_tokens, level,
    length,  # of a run, a multiple of CHUNK
    merged_length,  # a multiple of it
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Merge some keys of a run with those of the other runs."""
    _, _, problem = _find_problem(level)
    start, size = _find_group(problem, num_tokens, level)
    order += start
    keys += start
    merged += start
    slot = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    held = slot < size
    key = tl.load(keys + slot, mask=held, other=_LAST_KEY)
    own = tl.program_id(1) * CHUNK // length * length
    first_run = own // merged_length * merged_length
    last = tl.minimum(first_run + merged_length, size)
    place = first_run + slot - own
    for begin in range(first_run, last, length):
        if begin != own:
            end = tl.minimum(begin + length, size)
            place += _count_below(key, keys, begin, end, length)
    token = _find_tokens(order, key & _PLACES, held, level)
    is_last = merged_length >= tl.cdiv(num_tokens, 1 << level)
    tl.store(merged + place, tl.where(is_last, token, key), mask=held)
