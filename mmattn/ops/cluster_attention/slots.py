"""Index maps that gather the queries and keys of each cluster.

Axes: N tokens, c clusters, m query slots and l key slots of a cluster (those
of the largest). A place is a position in the order of the clusters.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..cluster_layout import (
    cluster_levels,
    cluster_sizes,
    group_slots,
    overlap_sizes,
)
from ..size_cache import cached_per_size


class Slots(NamedTuple):
    """Places of the slots of each cluster.

    Attributes:
        queries: Place of each query slot, ``(c, m)``; for an empty slot, any
            place of the cluster.
        keys: Place of each key slot, ``(c, l)``, likewise.
        bias: Masks empty key slots, ``(c, 1, l)``; None if there are none.
        query_slots: Query slot of each place, ``(N, )``.
    """

    queries: Tensor
    keys: Tensor
    bias: Tensor | None
    query_slots: Tensor


@cached_per_size
def slot_tables(
    num_tokens: int, cluster_size: int, overlap: int, device: torch.device
) -> Slots:
    """The slots of all clusters."""
    sizes = cluster_sizes(num_tokens, cluster_size)
    near = overlap_sizes(sizes, cluster_size, overlap)
    levels = cluster_levels(num_tokens, cluster_size)
    own, _, slots = group_slots(num_tokens, levels, device)
    starts = own[:, :1]  # (c, 1)
    num_own = torch.tensor(sizes, device=device)[:, None]
    num_near = torch.tensor(near, device=device)[:, None]
    # Next to the cut: after the first sibling, before the second.
    is_first = torch.arange(len(sizes), device=device)[:, None] % 2 == 0
    near_starts = starts + torch.where(is_first, num_own, -num_near)
    slot = torch.arange(max(map(sum, zip(sizes, near))), device=device)
    seen = slot < num_own + num_near  # (c, l)
    keys = torch.where(
        slot < num_own, starts + slot, near_starts + slot - num_own
    )
    keys = torch.where(seen, keys, starts)
    bias = None
    if num_tokens % len(sizes):
        bias = torch.zeros(seen.shape, device=device)
        bias = bias.masked_fill(~seen, -torch.inf)[:, None]
    return Slots(own, keys, bias, slots)


def gather_clusters(
    qkv: Tensor, order: Tensor, slots: Slots
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries ``(G, c, m, d)``, keys and values ``(G, c, l, d)``.

    G = B * h, of queries, keys and values side by side, ``(B, N, 3 * C)``.
    """
    B, h, N = order.shape
    G, d = B * h, qkv.shape[-1] // (3 * h)
    # One flat index for all problems: copying rows of a matrix is fastest.
    problem = torch.arange(G, device=qkv.device)[:, None]
    flat = order.reshape(G, N) + N * problem
    qkv = qkv.reshape(B, N, 3, h, d).permute(2, 0, 3, 1, 4)
    taken = []
    for rows, places in zip(
        qkv.reshape(3, G * N, d), (slots.queries, slots.keys, slots.keys)
    ):
        index = flat[:, places]  # (G, c, slots of a cluster)
        rows = rows.index_select(0, index.flatten())
        taken.append(rows.view(*index.shape, d))
    return tuple(taken)


def scatter_clusters(out: Tensor, order: Tensor, slots: Slots) -> Tensor:
    """Put results ``(G, c, m, d)`` in raster order, ``(B, N, C)``."""
    B, h, N = order.shape
    G, d = B * h, out.shape[-1]
    # Slot of each token's result.
    raster = slots.query_slots.expand(G, N)
    raster = torch.zeros_like(raster).scatter(
        1, order.reshape(G, N).long(), raster
    )
    problem = torch.arange(G, device=out.device)[:, None]
    index = raster + slots.queries.numel() * problem
    out = out.reshape(-1, d).index_select(0, index.flatten())
    return out.view(B, h, N, d).transpose(1, 2).reshape(B, N, h * d)
