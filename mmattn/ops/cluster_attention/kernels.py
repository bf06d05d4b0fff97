"""Attention inside clusters, gathered and scattered by index.

In cluster order, a cluster and its sibling are adjacent. So the keys of a
cluster are one range: its own places and ``near`` of the sibling, after them
for the first sibling and before them for the second. The kernels compute every
range from the sizes; no table, gathered copy or score is in memory.

The backward pass has no atomic additions and is deterministic: the program of
a block of keys adds up the contributions of its cluster and, where that
attends to the keys, of the sibling.

Axes: B images, h heads, N tokens, C = h * d channels, d channels of a head.
"""

import triton
import triton.language as tl

from .._triton.device import LOG2_E, dot, group_bounds, load_rows, store_rows

# Maps of another size must not recompile a kernel.
_SIZES = ('heads', 'num_tokens', 'levels', 'blocks', 'least', 'near', 'nears')


@triton.jit
def _seen_range(cluster, num_tokens, levels, least, near, nears):
    """Places of a cluster and the range of places that it attends to."""
    start, size = group_bounds(cluster, num_tokens, levels)
    _, sibling = group_bounds(cluster ^ 1, num_tokens, levels)
    overlap = tl.minimum(tl.where(size > least, nears, near), sibling)
    first = start - (cluster & 1) * overlap
    return start, size, first, size + overlap


@triton.jit
def _rows(order, place, valid, stride):
    """Memory offsets of the tokens of some places, in elements."""
    return tl.load(order + place, mask=valid, other=0) * stride


@triton.jit(do_not_specialize=_SIZES)
def attend(
    qkv,  # (B, N, 3 * C)
    order,  # (B, h, N)
    out,  # (B, N, C)
    lse,  # (B, h, N), logarithm to base 2 of sums, in the order of clusters
    qkv_b, qkv_n, out_b, out_n,
    heads, num_tokens, levels, blocks, least, near, nears, scale,
    CHANNELS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    block = pid % blocks
    cluster = pid // blocks % (1 << levels)
    problem = (pid // blocks >> levels).to(tl.int64)
    b, h = problem // heads, problem % heads
    q = qkv + b * qkv_b + h * CHANNELS
    k = q + heads * CHANNELS
    v = k + heads * CHANNELS
    out += b * out_b + h * CHANNELS
    order += problem * num_tokens
    lse += problem * num_tokens

    start, size, first, count = _seen_range(
        cluster, num_tokens, levels, least, near, nears
    )
    slot = block * BLOCK_M + tl.arange(0, BLOCK_M)
    held = slot < size
    token = _rows(order, start + slot, held, 1)
    queries = load_rows(q, token * qkv_n, held, CHANNELS, BLOCK_D)
    peak = tl.full((BLOCK_M,), float('-inf'), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for j in range(0, count, BLOCK_N):
        place = j + tl.arange(0, BLOCK_N)
        seen = place < count
        source = _rows(order, first + place, seen, 1)
        keys = load_rows(k, source * qkv_n, seen, CHANNELS, BLOCK_D)
        values = load_rows(v, source * qkv_n, seen, CHANNELS, BLOCK_D)
        scores = dot(queries, tl.trans(keys)) * (scale * LOG2_E)
        scores = tl.where(seen[None], scores, float('-inf'))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weights, 1)
        mixed *= shrink[:, None]
        mixed += dot(weights.to(values.dtype), values)
        peak = higher
    store_rows(
        out, token * out_n, held, mixed / total[:, None], CHANNELS, BLOCK_D
    )
    tl.store(lse + start + slot, peak + tl.log2(total), mask=held)


@triton.jit(do_not_specialize=_SIZES)
def attend_backward_queries(
    qkv, order, lse,
    grad,  # (B, N, C), of the result
    delta,  # (B, h, N), in the order of clusters
    dqkv,  # (B, N, 3 * C)
    qkv_b, qkv_n, grad_b, grad_n, d_b, d_n,
    heads, num_tokens, levels, blocks, least, near, nears, scale,
    CHANNELS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of queries of a cluster.

    Also stores ``delta``, the mean gradient of a query's weights, for the
    keys. It is computed from the weights, not from the result, which is
    rounded to its dtype.
    """
    pid = tl.program_id(0)
    block = pid % blocks
    cluster = pid // blocks % (1 << levels)
    problem = (pid // blocks >> levels).to(tl.int64)
    b, h = problem // heads, problem % heads
    q = qkv + b * qkv_b + h * CHANNELS
    k = q + heads * CHANNELS
    v = k + heads * CHANNELS
    grad += b * grad_b + h * CHANNELS
    dq = dqkv + b * d_b + h * CHANNELS
    order += problem * num_tokens
    lse += problem * num_tokens
    delta += problem * num_tokens

    start, size, first, count = _seen_range(
        cluster, num_tokens, levels, least, near, nears
    )
    slot = block * BLOCK_M + tl.arange(0, BLOCK_M)
    held = slot < size
    token = _rows(order, start + slot, held, 1)
    queries = load_rows(q, token * qkv_n, held, CHANNELS, BLOCK_D)
    grads = load_rows(grad, token * grad_n, held, CHANNELS, BLOCK_D)
    norm = tl.load(lse + start + slot, mask=held, other=0.0)
    mean = tl.zeros((BLOCK_M,), tl.float32)
    for j in range(0, count, BLOCK_N):
        place = j + tl.arange(0, BLOCK_N)
        seen = place < count
        source = _rows(order, first + place, seen, 1)
        keys = load_rows(k, source * qkv_n, seen, CHANNELS, BLOCK_D)
        values = load_rows(v, source * qkv_n, seen, CHANNELS, BLOCK_D)
        scores = dot(queries, tl.trans(keys)) * (scale * LOG2_E)
        weights = tl.exp2(scores - norm[:, None])
        weights = tl.where(seen[None], weights, 0.0)
        mean += tl.sum(weights * dot(grads, tl.trans(values)), 1)
    tl.store(delta + start + slot, mean, mask=held)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for j in range(0, count, BLOCK_N):
        place = j + tl.arange(0, BLOCK_N)
        seen = place < count
        source = _rows(order, first + place, seen, 1)
        keys = load_rows(k, source * qkv_n, seen, CHANNELS, BLOCK_D)
        values = load_rows(v, source * qkv_n, seen, CHANNELS, BLOCK_D)
        scores = dot(queries, tl.trans(keys)) * (scale * LOG2_E)
        weights = tl.exp2(scores - norm[:, None])
        weights = tl.where(seen[None], weights, 0.0)
        slope = weights * (dot(grads, tl.trans(values)) - mean[:, None])
        total += dot(slope.to(keys.dtype), keys)
    store_rows(dq, token * d_n, held, total * scale, CHANNELS, BLOCK_D)


@triton.jit
def _add_queries(
    dk, dv, keys, values, sees, q, grad, order, lse, delta,
    qkv_n, grad_n,
    start, size, scale,
    CHANNELS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Add the gradients of ``size`` queries to a block of keys and values."""
    for i in range(0, size, BLOCK_N):
        slot = i + tl.arange(0, BLOCK_N)
        held = slot < size
        token = _rows(order, start + slot, held, 1)
        queries = load_rows(q, token * qkv_n, held, CHANNELS, BLOCK_D)
        grads = load_rows(grad, token * grad_n, held, CHANNELS, BLOCK_D)
        norm = tl.load(lse + start + slot, mask=held, other=0.0)
        mean = tl.load(delta + start + slot, mask=held, other=0.0)
        scores = dot(keys, tl.trans(queries)) * (scale * LOG2_E)
        weights = tl.exp2(scores - norm[None])  # key by query
        weights = tl.where(sees[:, None] & held[None], weights, 0.0)
        dv += dot(weights.to(grads.dtype), grads)
        slope = weights * (dot(values, tl.trans(grads)) - mean[None])
        dk += dot(slope.to(queries.dtype), queries)
    return dk, dv


@triton.jit(do_not_specialize=_SIZES)
def attend_backward_keys(
    qkv, order, lse, grad, delta, dqkv,
    qkv_b, qkv_n, grad_b, grad_n, d_b, d_n,
    heads, num_tokens, levels, blocks, least, near, nears, scale,
    CHANNELS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of keys of a cluster and of their values."""
    pid = tl.program_id(0)
    block = pid % blocks
    cluster = pid // blocks % (1 << levels)
    problem = (pid // blocks >> levels).to(tl.int64)
    b, h = problem // heads, problem % heads
    q = qkv + b * qkv_b + h * CHANNELS
    k = q + heads * CHANNELS
    v = k + heads * CHANNELS
    grad += b * grad_b + h * CHANNELS
    dk = dqkv + b * d_b + (heads + h) * CHANNELS
    dv = dk + heads * CHANNELS
    order += problem * num_tokens
    lse += problem * num_tokens
    delta += problem * num_tokens

    start, size, first, count = _seen_range(
        cluster, num_tokens, levels, least, near, nears
    )
    slot = block * BLOCK_M + tl.arange(0, BLOCK_M)
    held = slot < size
    token = _rows(order, start + slot, held, 1)
    keys = load_rows(k, token * qkv_n, held, CHANNELS, BLOCK_D)
    values = load_rows(v, token * qkv_n, held, CHANNELS, BLOCK_D)
    key_total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    value_total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    key_total, value_total = _add_queries(
        key_total, value_total, keys, values, held,
        q, grad, order, lse, delta, qkv_n, grad_n,
        start, size, scale, CHANNELS, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    if levels > 0:
        other, others, first, count = _seen_range(
            cluster ^ 1, num_tokens, levels, least, near, nears
        )
        place = start + slot
        sees = held & (place >= first) & (place < first + count)
        # Skip the sibling if it attends to none of the keys.
        others = tl.where(tl.max(sees.to(tl.int32), 0) > 0, others, 0)
        key_total, value_total = _add_queries(
            key_total, value_total, keys, values, sees,
            q, grad, order, lse, delta, qkv_n, grad_n,
            other, others, scale, CHANNELS, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    store_rows(dk, token * d_n, held, key_total * scale, CHANNELS, BLOCK_D)
    store_rows(dv, token * d_n, held, value_total, CHANNELS, BLOCK_D)
