"""Reference implementation of balanced clusters.

Axes: G independent problems (images times heads), N tokens, d channels,
g groups of a level, m slots of a group (the size of the largest). A place is
a position in the current order, group after group.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cluster_layout import cluster_levels, group_slots
from ..dispatch import register_implementation
from ..size_cache import cached_per_size
from ..tracing import is_exporting_to_onnx


@register_implementation('balanced_clusters', 'reference')
def reference(
    features: Tensor, cluster_size: int, iterations: int, temperature: float
) -> Tensor:
    shape = features.shape[:-1]
    features = features.flatten(0, -3)
    G, N, _ = features.shape
    order = torch.arange(N, device=features.device).expand(G, N)
    levels = cluster_levels(N, cluster_size)
    if levels == 0:
        return order.reshape(shape)
    wide = torch.promote_types(features.dtype, torch.float32)
    features = features.to(wide)
    # Only directions matter; at this scale no square over- or underflows.
    peak = features.abs().amax(dim=(1, 2), keepdim=True)
    features = features / peak.clamp(min=torch.finfo(wide).tiny)
    lengths = torch.linalg.vector_norm(features, dim=-1)  # (G, N)
    units = features / lengths.clamp(min=1e-12)[..., None]
    for level in range(levels):
        step = _bisect(units, lengths, level, iterations, temperature)
        order = order.gather(1, step)
        if level == levels - 1:
            break
        lengths = lengths.gather(1, step)
        # Rows of a matrix are copied fastest.
        step = step + N * torch.arange(G, device=step.device)[:, None]
        units = units.flatten(0, 1).index_select(0, step.flatten())
        units = units.view_as(features)
    return order.reshape(shape)


# A layer passes its ``impl`` to all its operations, 'sdpa' included.
register_implementation('balanced_clusters', 'sdpa')(reference)


def _bisect(
    units: Tensor,
    lengths: Tensor,
    level: int,
    iterations: int,
    temperature: float,
) -> Tensor:
    """Order ``(G, N)`` that sorts every group of one level.

    The features are given as unit vectors ``(G, N, d)`` and lengths
    ``(G, N)``.
    """
    N = units.shape[1]
    places, held, slots, halves = _level_tables(N, level, units.device)
    if N % 2**level == 0:
        units = units.unflatten(1, (2**level, -1))  # (G, g, m, d)
        lengths = lengths.unflatten(1, (2**level, -1))
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
    # Rounding can make a similarity less than -1 and the ratio infinite,
    # negative or undefined.
    limits = torch.finfo(units.dtype)
    toward = 1 + centroids @ units.mT  # (G, g, 2, m)
    toward = toward.clamp(min=limits.eps)
    ratio = toward[:, :, 0] / toward[:, :, 1]  # (G, g, m)
    # NaN, from features that overflowed elsewhere, would be sorted behind the
    # empty slots; the order must remain a permutation.
    ratio = ratio.nan_to_num(nan=limits.max)
    ratio = ratio.masked_fill(~held, torch.inf)
    # Empty slots are last in each group, before and after the sort.
    return (_argsort(ratio) + places[:, :1]).flatten(1)[:, slots]


def _argsort(x: Tensor) -> Tensor:
    """Sort the last axis; equal values keep their order."""
    if is_exporting_to_onnx():  # the sort of ONNX is always stable
        return x.sort(dim=-1).indices
    return x.argsort(dim=-1, stable=True)


@cached_per_size
def _level_tables(
    num_tokens: int, level: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tables of :func:`group_slots`, and the slots of each half of a group.

    The last is ``(g, 2, m)`` of 0 and 1.
    """
    places, held, slots = group_slots(num_tokens, level, device)
    sizes = held.sum(dim=1, keepdim=True)  # (g, 1)
    first = torch.arange(held.shape[1], device=device) < sizes - sizes // 2
    halves = torch.stack((first, held & ~first), dim=1)
    return places, held, slots, halves
