"""Cross-shaped attention by PyTorch's fused attention, inside stripes."""

import torch.nn.functional as F
from torch import Tensor

from ..dispatch import register_implementation
from ..tracing import without_autocast
from .stripes import attend_in_stripes


@register_implementation('cross_shaped_attention', 'sdpa', priority=10)
def sdpa(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    lepe_weight: Tensor,
    lepe_bias: Tensor | None,
    scale: float,
) -> Tensor:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with without_autocast(qkv):
            return F.scaled_dot_product_attention(q, k, v, scale=scale)

    return attend_in_stripes(
        qkv, num_heads, stripe_width, lepe_weight, lepe_bias, attend
    )
