"""Attention inside clusters of tokens and across their last cut.

Axes: G independent problems (images times heads), N tokens, d channels,
c clusters, m query slots and l key slots of a cluster (the largest's).
"""
from typing import Optional

import torch
from torch import Tensor

from .attention import attention
from .clustering import cluster_sizes
from .implementations import choose_implementation, register_implementation
from .size_cache import cached_per_size


def cluster_attention(q: Tensor,
                      k: Tensor,
                      v: Tensor,
                      order: Tensor,
                      cluster_size: int = 49,
                      overlap: int = 20,
                      scale: Optional[float] = None,
                      impl: str = 'auto') -> Tensor:
    """Let every token attend to its cluster and to the nearest of its sibling.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.2. A cluster of
    ``m`` tokens attends to its own and to ``round(overlap * m /
    cluster_size)`` of the cluster from which the last bisection parted it.
    Following the published code, the first of two siblings takes the second's
    first tokens and the second takes the first's last: those next to the cut.

    Args:
        q: Queries, ``(G, N, d)`` in raster order.
        k: Keys, ``(G, N, d)``.
        v: Values, ``(G, N, d)``.
        order: ``(G, N)``, of :func:`balanced_clusters` with the same
            ``cluster_size``.
        cluster_size: Tokens that a cluster holds at least. Defaults to 49.
        overlap: Tokens of the sibling for a cluster of ``cluster_size``, from
            0 to ``cluster_size``. Defaults to 20.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'`` (PyTorch's fused attention inside
            the clusters), another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

    Returns:
        ``(G, N, d)`` in raster order, in the dtype of ``v``.

    Raises:
        ValueError: If the shapes do not fit or ``overlap`` is out of range.
    """
    fits = q.ndim == 3 and q.shape == k.shape == v.shape
    if not fits or order.shape != q.shape[:2]:
        raise ValueError(
            'cluster_attention expects q, k, v (G, N, d) and order (G, N), '
            f'got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} and '
            f'{tuple(order.shape)}')
    if not 0 <= overlap <= cluster_size:
        raise ValueError('cluster_attention expects 0 <= overlap <= '
                         f'cluster_size, got {overlap=}, {cluster_size=}')
    if scale is None:
        scale = q.shape[-1]**-0.5
    args = (q, k, v, order, cluster_size, overlap, scale)
    row = choose_implementation('cluster_attention', impl, *args)
    return row.function(*args)


@register_implementation('cluster_attention', 'reference')
def _reference(*args) -> Tensor:
    return _in_clusters(*args, impl='reference')


@register_implementation(
    'cluster_attention', 'sdpa', needs='torch.nn.functional', priority=10)
def _sdpa(*args) -> Tensor:
    return _in_clusters(*args, impl='sdpa')


def _in_clusters(q: Tensor, k: Tensor, v: Tensor, order: Tensor,
                 cluster_size: int, overlap: int, scale: float,
                 impl: str) -> Tensor:
    G, N, d = q.shape
    own, shared, bias, held = _slot_tables(N, cluster_size, overlap, q.device)
    # One flat index for all problems: rows of a matrix are copied fastest.
    flat = order + N * torch.arange(G, device=q.device)[:, None]  # (G, N)

    def take(x: Tensor, slots: Tensor) -> Tensor:
        rows = flat[:, slots]  # (G, c, slots of a cluster)
        picked = x.reshape(G * N, d).index_select(0, rows.flatten())
        return picked.unflatten(0, rows.shape)

    out = attention(
        take(q, own), take(k, shared), take(v, shared), bias, scale, impl)
    if held is None:
        out = out.flatten(1, 2)
    else:
        out = out[:, held]  # (G, N, d), cluster after cluster
    raster = torch.empty_like(order).scatter_(
        1, order, torch.arange(N, device=q.device).expand(G, N))
    rows = raster + N * torch.arange(G, device=q.device)[:, None]
    return out.reshape(G * N, d).index_select(0, rows.flatten()).view(G, N, d)


@cached_per_size
def _slot_tables(
    num_tokens: int, cluster_size: int, overlap: int, device: torch.device
) -> tuple[Tensor, Tensor, Optional[Tensor], Optional[Tensor]]:
    """Which places of the cluster order the slots of a cluster stand for.

    Returns:
        Places of the query slots, ``(c, m)``, and of the key slots,
        ``(c, l)``; a bias that hides empty key slots, ``(c, 1, l)``, and
        whether a query slot holds a token, ``(c, m)``, both None where no
        slot is empty. An empty slot stands for a token of the cluster.
    """
    sizes = cluster_sizes(num_tokens, cluster_size)
    queries, keys = [], []
    start = 0
    for i, n in enumerate(sizes):
        own = list(range(start, start + n))
        extra = []
        if len(sizes) > 1:
            near = min(round(overlap * n / cluster_size), sizes[i ^ 1])
            extra = (
                range(start + n, start + n + near)
                if i % 2 == 0 else range(start - near, start))
        queries.append(own)
        keys.append(own + list(extra))
        start += n
    own, held = _as_table(queries, device)
    shared, seen = _as_table(keys, device)
    bias = torch.zeros(seen.shape, device=device)
    bias = bias.masked_fill_(~seen, -torch.inf)[:, None]
    return (own, shared, None if seen.all() else bias,
            None if held.all() else held)


def _as_table(rows: list[list[int]],
              device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows filled up to one length with their first entry; what was there."""
    length = max(map(len, rows))
    filled = [row + row[:1] * (length - len(row)) for row in rows]
    there = [[i < len(row) for i in range(length)] for row in rows]
    return (torch.tensor(filled, device=device),
            torch.tensor(there, device=device))
