"""Sizes of clusters and positions of their tokens.

Axes: N tokens, g groups, m slots of a group (the size of the largest). A place
is a position in the order of the clusters, group after group.
"""

import torch
from torch import Tensor


def cluster_levels(num_tokens: int, cluster_size: int) -> int:
    """Number of bisections: ``max(0, floor(log2(N / size)))``."""
    num_tokens = int(num_tokens)  # torch.jit.trace has tensors for sizes
    levels = 0
    while num_tokens >> (levels + 1) >= cluster_size:
        levels += 1
    return levels


def cluster_sizes(num_tokens: int, cluster_size: int) -> list[int]:
    """Sizes of the clusters of :func:`balanced_clusters`, in order.

    Every group is halved ``K = max(0, floor(log2(N / cluster_size)))`` times;
    the first half gets the odd token. The ``2 ** K`` sizes differ by at most
    one and are less than ``2 * cluster_size``.

    Raises:
        ValueError: If ``cluster_size`` is below 1.
    """
    if cluster_size < 1:
        raise ValueError(
            f'cluster_sizes expects cluster_size >= 1, got {cluster_size}'
        )
    sizes = [int(num_tokens)]
    for _ in range(cluster_levels(num_tokens, cluster_size)):
        sizes = [half for n in sizes for half in (n - n // 2, n // 2)]
    return sizes


def overlap_size(size: int, cluster_size: int, overlap: int) -> int:
    """Most tokens of its sibling that a cluster of ``size`` attends to."""
    return round(overlap * size / cluster_size)


def overlap_sizes(
    sizes: list[int], cluster_size: int, overlap: int
) -> list[int]:
    """Tokens of its sibling that each cluster attends to."""
    if len(sizes) == 1:
        return [0]
    return [
        min(overlap_size(n, cluster_size, overlap), sizes[i ^ 1])
        for i, n in enumerate(sizes)
    ]


def group_slots(
    num_tokens: int, levels: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Index maps between places and rows of slots, one row for each group.

    Computed from ranges alone, which tracers and exporters can follow.

    Args:
        num_tokens: Places N.
        levels: Number of bisections.
        device: Device of the tables.

    Returns:
        The place of each slot, ``(g, m)``, the group's last place for an
        empty slot; whether a slot is not empty, ``(g, m)``; the slot of each
        place, ``(N, )``, counting through the rows.
    """
    g = 2**levels
    m = -(-num_tokens // g)
    # Halve all groups at once: the bits of a group's number, highest first,
    # are the halves that contain it.
    group = torch.arange(g, device=device)
    start, size = torch.zeros_like(group), torch.full_like(group, num_tokens)
    for level in range(levels):
        is_second = group // 2 ** (levels - 1 - level) % 2
        start = start + is_second * (size - size // 2)
        size = (size + 1 - is_second) // 2
    slot = torch.arange(m, device=device)
    held = slot < size[:, None]  # (g, m)
    places = start[:, None] + torch.minimum(slot, size[:, None] - 1)
    # Halve all places at once, to find the group of each.
    offset = torch.arange(num_tokens, device=device)
    size, group = torch.full_like(offset, num_tokens), 0 * offset
    for _ in range(levels):
        half = size - size // 2
        is_second = (offset >= half).long()
        offset = offset - is_second * half
        size = (size + 1 - is_second) // 2
        group = 2 * group + is_second
    return places, held, m * group + offset
