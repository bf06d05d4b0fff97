"""Attention inside clusters of tokens and across their last cut.

Axes: B batch, N tokens, C = h * d channels, h heads, d channels of a head.
"""

from torch import Tensor

from ..attention import default_scale
from ..dispatch import choose_implementation

# What the implementations take.
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
