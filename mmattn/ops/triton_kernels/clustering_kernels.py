"""One level of balanced clustering: every group is sorted and so halved.

A program owns a group. It goes through the group's tokens once for the means
that it starts with, once for every refinement and once for the ratios, and
sorts the ratios with the places below them in one number, so that equal ratios
keep their order. Nothing is gathered: a level reads the features through the
order of the level before.

A group that is too large for one program to sort is shared by several, with
one launch for each time that they go through it: each sums up its tokens, and
whoever comes next adds the sums of all.

Axes: G problems, N tokens, d channels.
"""

import triton
import triton.language as tl

from .device_functions import group_bounds

# Another map must not compile a kernel again.
_SIZES = ('num_tokens', 'level', 'iterations')
_SIZES_SHARED = ('num_tokens', 'level', 'place_bits')
_EPSILON = tl.constexpr(1e-12)  # below which no vector is normalised
_FLOAT_EPSILON = tl.constexpr(2.0**-23)
_FLOAT_MAX = tl.constexpr(3.4028234663852886e38)
_FLOAT_TINY = tl.constexpr(1.1754943508222875e-38)
_LAST_KEY = tl.constexpr(2**63 - 1)


@triton.jit
def _read_tokens(
    features,
    order,
    slot,
    size,
    row,
    scale,
    IS_FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Some tokens of a group at the problem's scale, and their lengths."""
    held = slot < size
    if IS_FIRST:
        token = slot.to(tl.int64)
    else:
        token = tl.load(order + slot, mask=held, other=0)
    d = tl.arange(0, BLOCK_D)
    mask = held[:, None] & (d < CHANNELS)[None]
    places = features + (token * row)[:, None] + d[None]
    tokens = tl.load(places, mask=mask, other=0.0).to(tl.float32) * scale
    return tokens, tl.sqrt(tl.sum(tokens * tokens, 1))


@triton.jit
def _normalise(vectors):
    """Bring the sum of some vectors to length 1."""
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
def _assign(tokens, lengths, first, second, temperature):
    """How much of each token goes to which centroid."""
    to_first, to_second = _similarities(tokens, lengths, first, second)
    highest = tl.maximum(to_first, to_second)
    to_first = tl.exp(temperature * (to_first - highest))
    to_second = tl.exp(temperature * (to_second - highest))
    total = to_first + to_second
    return to_first / total, to_second / total


@triton.jit
def _above_zero(x):
    """At least the rounding of 1; what is not a number stays so."""
    return tl.where(x < _FLOAT_EPSILON, _FLOAT_EPSILON, x)


@triton.jit
def _rank(tokens, lengths, first, second):
    """A number of 31 bits for each token, in the order of the ratios."""
    to_first, to_second = _similarities(tokens, lengths, first, second)
    ratio = _above_zero(1 + to_first) / _above_zero(1 + to_second)
    ratio = tl.where(ratio == ratio, ratio, _FLOAT_MAX)
    # The bits of a positive number are in the order of the numbers.
    return ratio.to(tl.int32, bitcast=True).to(tl.int64)


@triton.jit
def _scale_of(peak):
    """What brings a problem to the range of float32."""
    return 1 / tl.where(peak < _FLOAT_TINY, _FLOAT_TINY, peak)


@triton.jit(do_not_specialize=_SIZES)
def sort_groups(
    features,  # (G, N, d)
    peaks,  # (G, ), largest absolute value of each problem
    order,  # (G, N), unread at the first level
    sorted_order,  # (G, N)
    features_g,
    features_n,
    num_tokens,
    level,
    iterations,
    temperature,
    IS_FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sort one group of one problem by the ratio of its similarities."""
    pid = tl.program_id(0)
    problem = (pid >> level).to(tl.int64)
    start, size = group_bounds(pid & ((1 << level) - 1), num_tokens, level)
    features += problem * features_g
    order += problem * num_tokens + start
    sorted_order += problem * num_tokens + start
    scale = _scale_of(tl.load(peaks + problem))

    # Summed over the chunks first, and only then over the tokens of a chunk:
    # that takes all warps to agree.
    nothing = tl.zeros((CHUNK, BLOCK_D), tl.float32)
    first, second = nothing, nothing
    for begin in range(0, size, CHUNK):
        slot = begin + tl.arange(0, CHUNK)
        tokens, _ = _read_tokens(
            features, order, slot, size, features_n, scale,
            IS_FIRST, CHANNELS, BLOCK_D,
        )  # fmt: skip
        is_first = (slot < size - size // 2)[:, None]
        first += tl.where(is_first, tokens, 0.0)
        second += tl.where(is_first, 0.0, tokens)
    first, second = _normalise(first), _normalise(second)
    for _ in range(iterations):
        next_first, next_second = nothing, nothing
        for begin in range(0, size, CHUNK):
            slot = begin + tl.arange(0, CHUNK)
            tokens, lengths = _read_tokens(
                features, order, slot, size, features_n, scale,
                IS_FIRST, CHANNELS, BLOCK_D,
            )  # fmt: skip
            to_first, to_second = _assign(
                tokens, lengths, first, second, temperature
            )
            next_first += to_first[:, None] * tokens
            next_second += to_second[:, None] * tokens
        first, second = _normalise(next_first), _normalise(next_second)

    for begin in range(0, size, CHUNK):
        slot = begin + tl.arange(0, CHUNK)
        tokens, lengths = _read_tokens(
            features, order, slot, size, features_n, scale,
            IS_FIRST, CHANNELS, BLOCK_D,
        )  # fmt: skip
        key = _rank(tokens, lengths, first, second) << 32
        tl.store(sorted_order + slot, key | slot, mask=slot < size)
    tl.debug_barrier()
    slot = tl.arange(0, BLOCK)
    held = slot < size
    keys = tl.load(sorted_order + slot, mask=held, other=_LAST_KEY)
    token = tl.sort(keys) & 0xFFFFFFFF
    if not IS_FIRST:
        token = tl.load(order + token, mask=held, other=0)
    tl.debug_barrier()  # before what was read above is written over
    tl.store(sorted_order + slot, token, mask=held)


@triton.jit
def _add_sums(sums, CHANNELS: tl.constexpr, SHARES: tl.constexpr,
              BLOCK_D: tl.constexpr):  # fmt: skip
    """The centroid that the sums ``(SHARES, 2, d)`` of a group give."""
    d = tl.arange(0, BLOCK_D)[None]
    places = tl.arange(0, SHARES)[:, None] * 2 * CHANNELS + d
    return _normalise(tl.load(sums + places, mask=d < CHANNELS, other=0.0))


@triton.jit
def _share(level, num_tokens, CHUNK: tl.constexpr, SHARES: tl.constexpr):
    """Problem, group, its first place, and first and last slot of a share."""
    group = tl.program_id(0) // SHARES
    problem = (group >> level).to(tl.int64)
    group &= (1 << level) - 1
    start, size = group_bounds(group, num_tokens, level)
    slots = tl.cdiv(tl.cdiv(size, SHARES), CHUNK) * CHUNK
    begin = tl.program_id(0) % SHARES * slots
    return problem, group, start, size, begin, tl.minimum(begin + slots, size)


@triton.jit(do_not_specialize=_SIZES_SHARED)
def add_shares(
    features,  # (G, N, d)
    peaks,  # (G, )
    order,  # (G, N), unread at the first level
    sums,  # (G * groups, SHARES, 2, d), of the time before
    next_sums,  # the same
    features_g,
    features_n,
    num_tokens,
    level,
    temperature,
    IS_START: tl.constexpr,  # from the halves of the group
    IS_FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    SHARES: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sum up what a share of a group gives to both centroids."""
    problem, group, start, size, begin, end = _share(
        level, num_tokens, CHUNK, SHARES
    )
    features += problem * features_g
    order += problem * num_tokens + start
    scale = _scale_of(tl.load(peaks + problem))
    row = (problem << level) + group
    if not IS_START:
        sums += row * SHARES * 2 * CHANNELS
        first = _add_sums(sums, CHANNELS, SHARES, BLOCK_D)
        second = _add_sums(sums + CHANNELS, CHANNELS, SHARES, BLOCK_D)
    next_first = tl.zeros((CHUNK, BLOCK_D), tl.float32)
    next_second = tl.zeros((CHUNK, BLOCK_D), tl.float32)
    for place in range(begin, end, CHUNK):
        slot = place + tl.arange(0, CHUNK)
        tokens, lengths = _read_tokens(
            features, order, slot, end, features_n, scale,
            IS_FIRST, CHANNELS, BLOCK_D,
        )  # fmt: skip
        if IS_START:
            to_first = (slot < size - size // 2).to(tl.float32)
            to_second = 1 - to_first
        else:
            to_first, to_second = _assign(
                tokens, lengths, first, second, temperature
            )
        next_first += to_first[:, None] * tokens
        next_second += to_second[:, None] * tokens
    d = tl.arange(0, BLOCK_D)
    next_sums += (row * SHARES + tl.program_id(0) % SHARES) * 2 * CHANNELS + d
    tl.store(next_sums, tl.sum(next_first, 0), mask=d < CHANNELS)
    tl.store(next_sums + CHANNELS, tl.sum(next_second, 0), mask=d < CHANNELS)


@triton.jit(do_not_specialize=_SIZES_SHARED)
def rank_shares(
    features,
    peaks,
    order,
    sums,
    keys,  # (G, N), in the order of the groups, then of the ratios
    features_g,
    features_n,
    num_tokens,
    level,
    place_bits,  # bits of a token's place
    IS_FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    SHARES: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Give each token of a share of a group a number to be sorted by."""
    problem, group, start, size, begin, end = _share(
        level, num_tokens, CHUNK, SHARES
    )
    features += problem * features_g
    order += problem * num_tokens + start
    keys += problem * num_tokens + start
    scale = _scale_of(tl.load(peaks + problem))
    sums += ((problem << level) + group) * SHARES * 2 * CHANNELS
    first = _add_sums(sums, CHANNELS, SHARES, BLOCK_D)
    second = _add_sums(sums + CHANNELS, CHANNELS, SHARES, BLOCK_D)
    groups = (problem * 0 + group) << (31 + place_bits)  # 64 bits wide
    for place in range(begin, end, CHUNK):
        slot = place + tl.arange(0, CHUNK)
        tokens, lengths = _read_tokens(
            features, order, slot, end, features_n, scale,
            IS_FIRST, CHANNELS, BLOCK_D,
        )  # fmt: skip
        rank = _rank(tokens, lengths, first, second) << place_bits
        tl.store(keys + slot, groups | rank | (start + slot), mask=slot < end)
