"""Cross-shaped attention by PyTorch's fused attention, inside stripes."""

from torch import Tensor

from ..attention import fused_attention
from ..dispatch import register_implementation
from .stripes import attend_in_stripes


@register_implementation('cross_shaped_attention', 'sdpa', priority=10)
def sdpa(*args) -> Tensor:
    return attend_in_stripes(fused_attention, *args)
