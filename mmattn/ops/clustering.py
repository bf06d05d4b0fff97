"""Balanced clusters of similar tokens, by repeated bisection.

Axes: G independent problems (images times heads), N tokens, d channels,
g groups of a level, m slots of a group (the size of the largest). A place is
a position in the current order, group after group.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiling import sizes_vary
from .cpu_kernels import call, refuse_cpp, register_kernel
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .operators import define_operator
from .size_cache import cached_per_size


def cluster_sizes(num_tokens: int, cluster_size: int) -> list[int]:
    """Sizes of the clusters that :func:`balanced_clusters` makes, in order.

    ``K = max(0, floor(log2(N / cluster_size)))`` times, every group is halved,
    the first half taking the odd token. Sizes differ by at most one and lie
    below ``2 * cluster_size``, unless ``N`` itself is smaller.

    Args:
        num_tokens: Tokens N.
        cluster_size: Tokens that a cluster holds at least, where it can.

    Returns:
        ``2 ** K`` sizes.

    Raises:
        ValueError: If ``cluster_size`` is below 1.
    """
    if cluster_size < 1:
        raise ValueError(
            f'cluster_sizes expects cluster_size >= 1, got {cluster_size}'
        )
    num_tokens = int(num_tokens)  # torch.jit.trace has tensors for sizes
    num_groups = 1
    while num_tokens // (2 * num_groups) >= cluster_size:
        num_groups *= 2
    return _halved(num_tokens, num_groups)


def _halved(num_tokens: int, num_groups: int) -> list[int]:
    sizes = [num_tokens]
    while len(sizes) < num_groups:
        sizes = [half for n in sizes for half in (n - n // 2, n // 2)]
    return sizes


def balanced_clusters(
    features: Tensor,
    cluster_size: int = 49,
    iterations: int = 2,
    temperature: float = 100.0,
    impl: str = 'auto',
) -> Tensor:
    """Order the tokens such that similar ones lie together.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.2, balanced
    hierarchical clustering. A group is halved by two centroids. They start as
    the directions of the means of the group's first and second half, in its
    current order (raster order at first). ``iterations`` times, every token
    is assigned softly, ``softmax(temperature * s)`` over its cosine
    similarities ``s`` with both, and a centroid becomes the direction of the
    sum of the tokens so weighted. The tokens are then sorted, stably and
    ascending, by ``(1 + s_0) / (1 + s_1)`` and cut in the middle.

    Args:
        features: ``(G, N, d)``, or ``(B, h, N, d)`` for ``B * h`` problems;
            of any scale. A view of any strides is read where it lies.
        cluster_size: Tokens that a cluster holds at least, see
            :func:`cluster_sizes`. Defaults to 49.
        iterations: Refinements of the centroids. Defaults to 2.
        temperature: Sharpness of the soft assignment. Defaults to 100.
        impl: ``'reference'``, another registered name, or ``'auto'``.
            Defaults to ``'auto'``.

    Returns:
        ``(G, N)`` or ``(B, h, N)`` int64, a permutation of the tokens in
        each row: cluster after cluster, with the sizes of
        :func:`cluster_sizes`. No gradient flows; the scores are computed in
        float32 or wider.

    Raises:
        ValueError: If ``features`` does not have three or four axes or
            ``cluster_size`` is below 1.
    """
    if features.ndim not in (3, 4) or cluster_size < 1:
        raise ValueError(
            'balanced_clusters expects features (G, N, d) or (B, h, N, d) '
            f'and cluster_size >= 1, got {tuple(features.shape)} and '
            f'{cluster_size=}'
        )
    args = (features, cluster_size, iterations, temperature)
    row = choose_implementation('balanced_clusters', impl, *args)
    if sizes_vary(features) and not row.any_size:
        return _for_any_size(features.detach(), *args[1:], impl)
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        return row.function(*args)


def _empty_order(features: Tensor, *args) -> Tensor:
    return features.new_empty(features.shape[:-1], dtype=torch.int64)


_for_any_size = define_operator(
    'balanced_clusters_for_any_size',
    'Tensor features, int cluster_size, int iterations, float temperature, '
    'str impl',
    balanced_clusters,
    _empty_order,
)


@register_implementation('balanced_clusters', 'reference')
def _reference(
    features: Tensor, cluster_size: int, iterations: int, temperature: float
) -> Tensor:
    shape = features.shape[:-1]
    features = features.flatten(0, -3)
    G, N, _ = features.shape
    order = torch.arange(N, device=features.device).expand(G, N)
    target = len(cluster_sizes(N, cluster_size))
    if target == 1:
        return order.view(shape)
    features = _widened(features)
    # Directions alone count; at this scale no square over- or underflows.
    peak = features.abs().amax(dim=(1, 2), keepdim=True)
    features = features / peak.clamp(min=torch.finfo(features.dtype).tiny)
    lengths = torch.linalg.vector_norm(features, dim=-1)  # (G, N)
    units = features / lengths.clamp(min=1e-12)[..., None]
    num_groups = 1
    while True:
        step = _bisect(units, lengths, num_groups, iterations, temperature)
        order = order.gather(1, step)
        num_groups *= 2
        if num_groups == target:
            return order.view(shape)
        lengths = lengths.gather(1, step)
        # Rows of a matrix are copied fastest.
        step = step + N * torch.arange(G, device=step.device)[:, None]
        units = units.flatten(0, 1).index_select(0, step.flatten())
        units = units.view_as(features)


def _widened(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _bisect(
    units: Tensor,
    lengths: Tensor,
    num_groups: int,
    iterations: int,
    temperature: float,
) -> Tensor:
    """Order ``(G, N)`` that sorts every group of one level, for the cut.

    Takes the direction, ``(G, N, d)``, and the length, ``(G, N)``, of each.
    """
    N = units.shape[1]
    places, held, slots, halves = _level_tables(N, num_groups, units.device)
    if N % num_groups == 0:
        units = units.unflatten(1, (num_groups, -1))  # (G, g, m, d)
        lengths = lengths.unflatten(1, (num_groups, -1))
    else:
        # An empty slot must not pull a centroid.
        units, lengths = units[:, places], lengths[:, places] * held
    lengths = lengths[:, :, None]  # (G, g, 1, m)
    weights = halves.to(units.dtype)  # (g, 2, m)
    for _ in range(iterations):
        centroids = F.normalize(weights * lengths @ units, dim=-1)
        similarity = centroids @ units.mT  # (G, g, 2, m)
        weights = (temperature * similarity).softmax(dim=2)
    centroids = F.normalize(weights * lengths @ units, dim=-1)
    # Rounding can take a similarity below -1; a token opposite to a centroid
    # must not make the ratio infinite, negative or undefined.
    limits = torch.finfo(units.dtype)
    toward = 1 + centroids @ units.mT  # (G, g, 2, m)
    toward = toward.clamp(min=limits.eps)
    ratio = toward[:, :, 0] / toward[:, :, 1]  # (G, g, m)
    # Features that have overflowed elsewhere give NaN, which would be sorted
    # behind the empty slots; the order must stay a permutation.
    ratio = ratio.nan_to_num(nan=limits.max)
    ratio = ratio.masked_fill(~held, torch.inf)
    ranked = ratio.argsort(dim=-1, stable=True)
    # Empty slots are last in each group, before and after the sort.
    return (ranked + places[:, :1]).flatten(1)[:, slots]


@cached_per_size
def _level_tables(
    num_tokens: int, num_groups: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the groups of a level lie in the current order.

    Returns:
        The tables of :func:`group_slots`; then which slots make up each half
        of a group, ``(g, 2, m)`` of 0 and 1.
    """
    places, held, slots = group_slots(_halved(num_tokens, num_groups), device)
    sizes = held.sum(dim=1, keepdim=True)  # (g, 1)
    first = torch.arange(held.shape[1], device=device) < sizes - sizes // 2
    halves = torch.stack((first, held & ~first), dim=1)
    return places, held, slots, halves


def group_slots(
    sizes: list[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay groups of consecutive places out as rows of one length.

    Args:
        sizes: Places of each group.
        device: Where the tables lie.

    Returns:
        The place that each slot holds, ``(g, m)``, that of the group's last
        for an empty slot; whether a slot is not empty, ``(g, m)``; the slot
        that holds each place, ``(N, )``, counting through the rows.
    """
    m = max(sizes)
    num_places = torch.tensor(sizes, device=device)  # (g, )
    starts = num_places.cumsum(0) - num_places
    slot = torch.arange(m, device=device)
    held = slot < num_places[:, None]  # (g, m)
    places = starts[:, None] + torch.minimum(slot, num_places[:, None] - 1)
    # Shapes follow from the sizes alone, so that a tracer can follow.
    group = torch.repeat_interleave(num_places, output_size=sum(sizes))
    slots = torch.arange(sum(sizes), device=device) - starts[group] + m * group
    return places, held, slots


def _refuse_cpp(features: Tensor, *args) -> Reason:
    narrow = features.dtype in (torch.bfloat16, torch.float16)
    return refuse_cpp(features[:0].float() if narrow else features)


@register_kernel('balanced_clusters', priority=20, refuses=_refuse_cpp)
def _cpp(
    features: Tensor, cluster_size: int, iterations: int, temperature: float
) -> Tensor:
    features = _widened(features)
    shape = features.shape[:-1]
    order = features.new_empty(shape, dtype=torch.int64)
    features = features if features.ndim == 4 else features[None]
    levels = len(cluster_sizes(shape[-1], cluster_size)).bit_length() - 1
    call(
        'balanced_clusters',
        features,
        order,
        *features.shape,
        *features.stride(),
        levels,
        iterations,
        float(temperature),
        torch.get_num_threads(),
    )
    return order
