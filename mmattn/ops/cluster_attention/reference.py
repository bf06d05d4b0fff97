"""Reference implementation of cluster attention."""

from torch import Tensor

from ..attention import plain_attention
from ..dispatch import register_implementation
from .slots import gather_clusters, scatter_clusters, slot_tables


@register_implementation('cluster_attention', 'reference')
def reference(
    qkv: Tensor, order: Tensor, cluster_size: int, overlap: int, scale: float
) -> Tensor:
    slots = slot_tables(order.shape[2], cluster_size, overlap, qkv.device)
    q, k, v = gather_clusters(qkv, order, slots)
    out = plain_attention(q, k, v, slots.bias, scale)  # (G, c, m, d)
    return scatter_clusters(out, order, slots)
