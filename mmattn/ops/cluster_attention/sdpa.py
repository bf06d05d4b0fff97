"""Cluster attention by PyTorch's fused attention, of gathered clusters."""

import torch.nn.functional as F
from torch import Tensor

from ..dispatch import register_implementation
from ..tracing import without_autocast
from .slots import gather_clusters, scatter_clusters, slot_tables


@register_implementation('cluster_attention', 'sdpa', priority=10)
def sdpa(
    qkv: Tensor, order: Tensor, cluster_size: int, overlap: int, scale: float
) -> Tensor:
    slots = slot_tables(order.shape[2], cluster_size, overlap, qkv.device)
    q, k, v = gather_clusters(qkv, order, slots)
    bias = slots.bias
    if bias is not None:
        bias = bias[None].to(qkv.dtype)  # four axes, too
    # The clusters take the place of the heads.
    with without_autocast(qkv):
        out = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    return scatter_clusters(out, order, slots)
