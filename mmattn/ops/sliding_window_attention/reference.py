"""Reference implementation of sliding-window attention."""

from torch import Tensor

from ..attention import plain_attention
from ..dispatch import register_implementation
from .places import average_windows, cut_windows


@register_implementation('sliding_window_attention', 'reference')
def reference(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    stride: int,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    q, k, v, bias = cut_windows(qkv, num_heads, window_size, stride, bias)
    out = plain_attention(q, k, v, bias, scale)  # (B, n, h, N, d)
    return average_windows(out, qkv.shape[1:3], window_size, stride)
