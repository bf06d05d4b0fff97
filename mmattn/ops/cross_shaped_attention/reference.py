"""Reference implementation of cross-shaped attention."""

from torch import Tensor

from ..attention import plain_attention
from ..dispatch import register_implementation
from .stripes import attend_in_stripes


@register_implementation('cross_shaped_attention', 'reference')
def reference(*args) -> Tensor:
    return attend_in_stripes(plain_attention, *args)
