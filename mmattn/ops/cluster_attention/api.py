"""Attention inside clusters of tokens and to part of the sibling cluster.

Axes: B batch, N tokens, C = h * d channels, h heads, d channels of a head.
"""

from torch import Tensor

from ..attention import default_scale
from ..dispatch import choose_implementation

# Schema of the implementations.
ARGUMENTS = (
    'Tensor qkv, Tensor order, int cluster_size, int overlap, float scale'
)


def cluster_attention(
    qkv: Tensor,
    order: Tensor,
    cluster_size: int = 49,
    overlap: int = 20,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attend inside each cluster and to the nearest tokens of its sibling.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.2. The sibling
    is the other half of the last bisection. A cluster of ``m`` tokens attends
    to itself and to the ``round(overlap * m / cluster_size)`` tokens of its
    sibling that are next to the cut, as in the published code.

    Args:
        qkv: Queries, keys and values side by side, ``(B, N, 3 * C)`` in
            raster order.
        order: Result of :func:`balanced_clusters` with the same
            ``cluster_size``, ``(B, h, N)``.
        cluster_size: Minimum tokens of a cluster. Defaults to 49.
        overlap: Tokens of the sibling for a cluster of ``cluster_size``, from
            0 to ``cluster_size``. Defaults to 20.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'``, ``'cpp'``, ``'triton'``, another
            registered name, or ``'auto'``. Defaults to ``'auto'``.

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
        scale = default_scale(qkv, order.shape[1])
    args = qkv, order, cluster_size, overlap, scale
    return choose_implementation('cluster_attention', impl, *args)(*args)
