"""Cross-shaped attention in plain PyTorch, which defines the operation."""

from torch import Tensor

from ..attention import plain_attention
from ..dispatch import register_implementation
from .stripes import attend_in_stripes


@register_implementation('cross_shaped_attention', 'reference')
def reference(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    lepe_weight: Tensor,
    lepe_bias: Tensor | None,
    scale: float,
) -> Tensor:
    return attend_in_stripes(
        qkv,
        num_heads,
        stripe_width,
        lepe_weight,
        lepe_bias,
        lambda q, k, v: plain_attention(q, k, v, None, scale),
    )
