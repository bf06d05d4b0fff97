"""Sliding-window attention by PyTorch's fused attention, of cut windows."""

from torch import Tensor

from ..attention import fused_attention
from ..dispatch import register_implementation
from .places import average_windows, cut_windows


@register_implementation('sliding_window_attention', 'sdpa', priority=10)
def sdpa(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    stride: int,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    q, k, v, bias = cut_windows(qkv, num_heads, window_size, stride, bias)
    B, n, h, N, d = q.shape
    # The fused kernels take four axes. If some windows extend beyond the map,
    # each has its own bias and windows become heads.
    lead = B * n, h
    if bias is not None:
        if bias.ndim == 4:
            lead = B, n * h
            bias = bias.expand(n, h, -1, -1).flatten(0, 1)
        bias = bias[None]
    q, k, v = (x.reshape(*lead, N, d) for x in (q, k, v))
    out = fused_attention(q, k, v, bias, scale)
    out = out.reshape(B, n, h, N, d)
    return average_windows(out, qkv.shape[1:3], window_size, stride)
