"""Balanced clusters of similar tokens, by repeated bisection.

Axes: G independent problems (images times heads), N tokens, d channels.
"""

import torch
from torch import Tensor

from ..dispatch import choose_implementation
from ..tracing import without_autocast

# Schema of the implementations.
ARGUMENTS = (
    'Tensor features, int cluster_size, int iterations, float temperature'
)


def balanced_clusters(
    features: Tensor,
    cluster_size: int = 49,
    iterations: int = 2,
    temperature: float = 100.0,
    impl: str = 'auto',
) -> Tensor:
    """Order the tokens so that similar ones are next to each other.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.2, balanced
    hierarchical clustering. A group is halved by two centroids. They start as
    the directions of the means of the group's first and second half, in its
    current order (raster order at first). ``iterations`` times, every token
    is assigned softly, ``softmax(temperature * s)`` over its cosine
    similarities ``s`` with both, and a centroid becomes the direction of the
    sum of the tokens so weighted. The tokens are then sorted, stably and
    ascending, by ``(1 + s_0) / (1 + s_1)`` and cut in the middle.

    Args:
        features: ``(G, N, d)``, or ``(B, h, N, d)`` for ``B * h`` problems,
            of any scale and strides.
        cluster_size: Minimum tokens of a cluster, see :func:`cluster_sizes`.
            Defaults to 49.
        iterations: Refinements of the centroids. Defaults to 2.
        temperature: Sharpness of the soft assignment. Defaults to 100.
        impl: ``'reference'`` (also called ``'sdpa'``), ``'cpp'``,
            ``'triton'``, another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

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
    args = features.detach(), cluster_size, iterations, float(temperature)
    with torch.no_grad(), without_autocast(features):
        return choose_implementation('balanced_clusters', impl, *args)(*args)


def empty_order(features: Tensor, *args) -> Tensor:
    """Uninitialized result of the implementations."""
    return features.new_empty(features.shape[:-1], dtype=torch.int64)
