"""Custom operator of balanced clustering.

Axes: G problems, N tokens, d channels.
"""

import torch
import triton
from torch import Tensor

from .. import clustering
from .clustering_kernels import sort_groups
from .device_functions import on_device_of, tile_side, with_unit_stride

# Tokens of a group that one program sorts. A larger group is halved by the
# definition, until it is small enough.
_MOST_TOKENS = 4096
_THREAD_VALUES = 16  # of a thread's features, read at once


@torch.library.custom_op(
    'mmattn::balanced_clusters',
    mutates_args=(),
    schema='(Tensor features, SymInt cluster_size, SymInt iterations, '
    'float temperature) -> Tensor',
)
def balanced_clusters(
    features: Tensor, cluster_size: int, iterations: int, temperature: float
) -> Tensor:
    """Compute what ``mmattn.ops.balanced_clusters`` defines.

    One launch for each level. The order is that of the definition, but for
    tokens whose ratios differ by no more than float32 rounds.

    Args:
        features: ``(G, N, d)`` or ``(B, h, N, d)``.
        cluster_size: Tokens that a cluster holds at least.
        iterations: Refinements of the centroids.
        temperature: Sharpness of the assignment to the centroids.

    Returns:
        ``(G, N)`` or ``(B, h, N)`` int64.
    """
    shape = features.shape[:-1]
    features = features.flatten(0, -3)
    G, N, d = features.shape
    sizes = clustering.cluster_sizes(N, cluster_size)
    levels = len(sizes).bit_length() - 1
    level = 0
    while level < levels and triton.cdiv(N, 1 << level) > _MOST_TOKENS:
        level += 1
    if level:
        options = N >> level, iterations, temperature, 'reference'
        order = clustering.balanced_clusters(features, *options).contiguous()
    else:
        order = torch.arange(N, device=features.device).repeat(G, 1)
    if level == levels or not features.numel():
        return order.view(shape)
    features = with_unit_stride(features)
    peaks = torch.linalg.vector_norm(
        features, torch.inf, dim=(1, 2), dtype=torch.float32
    )
    sorted_order = torch.empty_like(order)
    BLOCK_D = tile_side(d, 1024)
    with on_device_of(features):
        for depth in range(level, levels):
            BLOCK = triton.next_power_of_2(triton.cdiv(N, 1 << depth))
            num_warps = 8 if BLOCK > 1024 else 4
            sort_groups[G << depth,](
                *(features, peaks, order, sorted_order),
                *features.stride()[:2],
                *(N, depth, iterations, temperature),
                IS_FIRST=depth == 0,
                CHANNELS=d,
                BLOCK=BLOCK,
                CHUNK=min(BLOCK, _THREAD_VALUES * 32 * num_warps // BLOCK_D),
                BLOCK_D=BLOCK_D,
                num_warps=num_warps,
            )
            order, sorted_order = sorted_order, order
    return order.view(shape)


@balanced_clusters.register_fake
def _(features, cluster_size, iterations, temperature):
    return features.new_empty(features.shape[:-1], dtype=torch.int64)
