"""Cluster attention by PyTorch's fused attention, of gathered clusters."""

from torch import Tensor

from ..attention import fused_attention
from ..dispatch import register_implementation
from .slots import gather_clusters, scatter_clusters, slot_tables


@register_implementation('cluster_attention', 'sdpa', priority=10)
def sdpa(
    qkv: Tensor, order: Tensor, cluster_size: int, overlap: int, scale: float
) -> Tensor:
    slots = slot_tables(order.shape[2], cluster_size, overlap, qkv.device)
    q, k, v = gather_clusters(qkv, order, slots)
    # The clusters take the place of the heads; the bias needs four axes, too.
    bias = None if slots.bias is None else slots.bias[None]
    out = fused_attention(q, k, v, bias, scale)
    return scatter_clusters(out, order, slots)
