"""Attention inside clusters of tokens and across their last cut.

Axes: B batch, N tokens, C = h * d channels, h heads, d channels of a head,
G = B * h independent problems, c clusters, m query slots and l key slots of a
cluster (the largest's).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .attention import attention
from .clustering import cluster_sizes, group_slots
from .compiling import sizes_vary
from .cpu_kernels import refuse_cpp, register_kernel
from .cpu_kernels.attention import SlotGroups, attend_in_groups
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .operators import define_operator
from .size_cache import cached_per_size


def cluster_attention(
    qkv: Tensor,
    order: Tensor,
    cluster_size: int = 49,
    overlap: int = 20,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Let every token attend to its cluster and to the nearest of its sibling.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.2. A cluster of
    ``m`` tokens attends to its own and to ``round(overlap * m /
    cluster_size)`` of the cluster from which the last bisection parted it.
    Following the published code, the first of two siblings takes the second's
    first tokens and the second takes the first's last: those next to the cut.

    Args:
        qkv: Queries, keys and values side by side, ``(B, N, 3 * C)`` in
            raster order, each of ``h`` heads of ``d`` channels.
        order: ``(B, h, N)``, of :func:`balanced_clusters` with the same
            ``cluster_size``, for each head of each image.
        cluster_size: Tokens that a cluster holds at least. Defaults to 49.
        overlap: Tokens of the sibling for a cluster of ``cluster_size``, from
            0 to ``cluster_size``. Defaults to 20.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'`` (PyTorch's fused attention inside
            the clusters), another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

    Returns:
        ``(B, N, C)`` in raster order, in the dtype of ``qkv``.

    Raises:
        ValueError: If the shapes do not fit, or ``overlap`` or
            ``cluster_size`` is out of range.
    """
    fits = qkv.ndim == order.ndim == 3 and order.shape[1] > 0
    fits = fits and qkv.shape[:2] == (order.shape[0], order.shape[2])
    if not fits or qkv.shape[2] % (3 * order.shape[1]):
        raise ValueError(
            'cluster_attention expects qkv (B, N, 3 * heads * d) and order '
            f'(B, heads, N), got {tuple(qkv.shape)} and {tuple(order.shape)}'
        )
    if not 0 <= overlap <= cluster_size or cluster_size < 1:
        raise ValueError(
            'cluster_attention expects 0 <= overlap <= cluster_size and '
            f'cluster_size >= 1, got {overlap=}, {cluster_size=}'
        )
    if scale is None:
        scale = (qkv.shape[-1] // (3 * order.shape[1])) ** -0.5
    args = (qkv, order, cluster_size, overlap, scale)
    row = choose_implementation('cluster_attention', impl, *args)
    if sizes_vary(qkv) and not row.any_size:
        return _for_any_size(*args, impl)
    return row.function(*args)


_for_any_size = define_operator(
    'cluster_attention_for_any_size',
    'Tensor qkv, Tensor order, int cluster_size, int overlap, float scale, '
    'str impl',
    cluster_attention,
)


@register_implementation('cluster_attention', 'reference')
def _reference(*args) -> Tensor:
    return _in_clusters(*args, impl='reference')


@register_implementation(
    'cluster_attention', 'sdpa', needs='torch.nn.functional', priority=10
)
def _sdpa(*args) -> Tensor:
    return _in_clusters(*args, impl='sdpa')


def _in_clusters(
    qkv: Tensor,
    order: Tensor,
    cluster_size: int,
    overlap: int,
    scale: float,
    impl: str,
) -> Tensor:
    B, h, N = order.shape
    parts = qkv.unflatten(-1, (3, h, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = parts.flatten(1, 2)  # each (G, N, d)
    G, _, d = q.shape
    order = order.flatten(0, 1)
    slots = _slot_tables(N, cluster_size, overlap, q.device)
    # One flat index for all problems: rows of a matrix are copied fastest.
    problem = torch.arange(G, device=q.device)[:, None]
    flat = order + N * problem  # (G, N)

    def take(x: Tensor, places: Tensor) -> Tensor:
        rows = flat[:, places]  # (G, c, slots of a cluster)
        picked = x.reshape(G * N, d).index_select(0, rows.flatten())
        return picked.view(*rows.shape, d)

    out = attention(
        take(q, slots.queries),
        take(k, slots.keys),
        take(v, slots.keys),
        slots.bias,
        scale,
        impl,
    )
    # Where the result of each token lies among all slots, (G, N).
    raster = slots.query_slots.expand(G, N)
    raster = torch.empty_like(order).scatter_(1, order, raster)
    rows = raster + slots.queries.numel() * problem
    out = out.reshape(G * slots.queries.numel(), d)
    out = out.index_select(0, rows.flatten()).view(B, h, N, d)
    return out.transpose(1, 2).flatten(2)


def _refuse(qkv: Tensor, order: Tensor, *args) -> Reason:
    if order.device != qkv.device or order.is_floating_point():
        return (
            'it takes an order of integers beside the map, got '
            f'{order.dtype} on {order.device}'
        )
    return refuse_cpp(qkv)


@register_kernel('cluster_attention', priority=30, refuses=_refuse)
def _in_cluster_slots(
    qkv: Tensor,
    order: Tensor,
    cluster_size: int,
    overlap: int,
    scale: float,
) -> Tensor:
    N = qkv.shape[1]
    # What is no token would be read and written outside of the map; a token
    # that is not there would keep what the memory held before.
    seen = torch.zeros(order.shape, dtype=torch.bool, device='cpu')
    try:
        is_order = seen.scatter_(-1, order.long(), True).all()
    except (IndexError, RuntimeError):  # as torch tells what lies outside
        is_order = False
    if not is_order:
        raise IndexError(
            f'cluster_attention expects an order of the tokens 0 to {N - 1}, '
            'each once for each head of each image; got one that misses some'
        )
    groups = SlotGroups(
        order.int().contiguous(), *_cluster_ranges(N, cluster_size, overlap)
    )
    return attend_in_groups(qkv, order.shape[1], [groups], scale)


@cached_per_size
def _cluster_ranges(
    num_tokens: int, cluster_size: int, overlap: int
) -> tuple[Tensor, int, int, int]:
    """The fields of :class:`SlotGroups` behind the slots."""
    sizes = cluster_sizes(num_tokens, cluster_size)
    near = _near_sizes(sizes, cluster_size, overlap)
    ranges, start = [], 0
    for i, (own, more) in enumerate(zip(sizes, near)):
        end = start + own
        # Next to the cut: past the end of a first child, before a second.
        keys = (start, end + more) if i % 2 == 0 else (start - more, end)
        ranges.append((start, end, *keys))
        start = end
    siblings = min(2, len(sizes))
    most_keys = max(map(sum, zip(sizes, near)))
    ranges = torch.tensor(ranges, dtype=torch.int32, device='cpu')
    return ranges, sum(sizes[:siblings]), most_keys, siblings


def _near_sizes(
    sizes: list[int], cluster_size: int, overlap: int
) -> list[int]:
    """Tokens of its sibling that each cluster attends to."""
    if len(sizes) == 1:
        return [0]
    return [
        min(near_size(n, cluster_size, overlap), sizes[i ^ 1])
        for i, n in enumerate(sizes)
    ]


def near_size(size: int, cluster_size: int, overlap: int) -> int:
    """Tokens of its sibling that a cluster of ``size`` tokens attends to.

    At most; the sibling may hold one token less.
    """
    return round(overlap * size / cluster_size)


class _Slots(NamedTuple):
    """Which places of the cluster order the slots of a cluster stand for.

    Attributes:
        queries: Place of each query slot, ``(c, m)``, that of a token of the
            cluster for an empty slot.
        keys: Place of each key slot, ``(c, l)``, likewise.
        bias: Hides the empty key slots, ``(c, 1, l)``; None where none is.
        query_slots: Query slot of each place, ``(N, )``.
    """

    queries: Tensor
    keys: Tensor
    bias: Tensor | None
    query_slots: Tensor


@cached_per_size
def _slot_tables(
    num_tokens: int, cluster_size: int, overlap: int, device: torch.device
) -> _Slots:
    sizes = cluster_sizes(num_tokens, cluster_size)
    near = _near_sizes(sizes, cluster_size, overlap)
    own, _, slots = group_slots(sizes, device)
    starts = own[:, :1]  # (c, 1)
    num_own = torch.tensor(sizes, device=device)[:, None]
    num_near = torch.tensor(near, device=device)[:, None]
    # Next to the cut: past the end of a first child, before a second one.
    is_first = torch.arange(len(sizes), device=device)[:, None] % 2 == 0
    near_starts = starts + torch.where(is_first, num_own, -num_near)
    slot = torch.arange(max(map(sum, zip(sizes, near))), device=device)
    seen = slot < num_own + num_near  # (c, l)
    keys = torch.where(
        slot < num_own, starts + slot, near_starts + slot - num_own
    )
    keys = torch.where(seen, keys, starts)
    bias = None
    if len(set(sizes)) > 1:
        bias = torch.zeros(seen.shape, device=device)
        bias = bias.masked_fill_(~seen, -torch.inf)[:, None]
    return _Slots(own, keys, bias, slots)
