"""Attention inside clusters of tokens and across their last cut.

Axes: B batch, N tokens, C = h * d channels, h heads, d channels of a head,
G = B * h independent problems, c clusters, m query slots and l key slots of a
cluster (the largest's).
"""

import torch
from torch import Tensor

from .attention import attention
from .clustering import cluster_sizes, group_slots
from .implementations import choose_implementation, register_implementation
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
    return row.function(*args)


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
    own, shared, bias, slots = _slot_tables(N, cluster_size, overlap, q.device)
    # One flat index for all problems: rows of a matrix are copied fastest.
    problem = torch.arange(G, device=q.device)[:, None]
    flat = order + N * problem  # (G, N)

    def take(x: Tensor, places: Tensor) -> Tensor:
        rows = flat[:, places]  # (G, c, slots of a cluster)
        picked = x.reshape(G * N, d).index_select(0, rows.flatten())
        return picked.view(*rows.shape, d)

    out = attention(
        take(q, own), take(k, shared), take(v, shared), bias, scale, impl
    )
    # Where the result of each token lies among all slots, (G, N).
    raster = torch.empty_like(order).scatter_(1, order, slots.expand(G, N))
    rows = raster + own.numel() * problem
    out = out.reshape(G * own.numel(), d)
    out = out.index_select(0, rows.flatten()).view(B, h, N, d)
    return out.transpose(1, 2).flatten(2)


def near_size(size: int, cluster_size: int, overlap: int) -> int:
    """Tokens of its sibling that a cluster of ``size`` tokens attends to.

    At most; the sibling may hold one token less.
    """
    return round(overlap * size / cluster_size)


@cached_per_size
def _slot_tables(
    num_tokens: int, cluster_size: int, overlap: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Which places of the cluster order the slots of a cluster stand for.

    Returns:
        Places of the query slots, ``(c, m)``, and of the key slots,
        ``(c, l)``, that of a token of the cluster for an empty slot; a bias
        that hides empty key slots, ``(c, 1, l)``, or None where none is
        empty; the query slot of each place, ``(N, )``.
    """
    sizes = cluster_sizes(num_tokens, cluster_size)
    near = (
        [0]
        if len(sizes) == 1
        else [
            min(near_size(n, cluster_size, overlap), sizes[i ^ 1])
            for i, n in enumerate(sizes)
        ]
    )
    own, _, slots = group_slots(sizes, device)
    starts = own[:, :1]  # (c, 1)
    num_own = torch.tensor(sizes, device=device)[:, None]
    num_near = torch.tensor(near, device=device)[:, None]
    # Next to the cut: past the end of a first child, before a second one.
    is_first = torch.arange(len(sizes), device=device)[:, None] % 2 == 0
    near_starts = starts + torch.where(is_first, num_own, -num_near)
    slot = torch.arange(max(map(sum, zip(sizes, near))), device=device)
    seen = slot < num_own + num_near  # (c, l)
    shared = torch.where(
        slot < num_own, starts + slot, near_starts + slot - num_own
    )
    shared = torch.where(seen, shared, starts)
    if len(set(sizes)) == 1:
        return own, shared, None, slots
    bias = torch.zeros(seen.shape, device=device)
    return own, shared, bias.masked_fill_(~seen, -torch.inf)[:, None], slots
