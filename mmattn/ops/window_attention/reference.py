"""Reference implementation of window attention."""

from torch import Tensor

from ..attention import plain_attention
from ..dispatch import register_implementation
from ..windows import (
    merge_windows,
    needed_shift,
    shifted_window_bias,
    split_windows,
)


@register_implementation('window_attention', 'reference')
def reference(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    size, window = qkv.shape[1:3], (window_size, window_size)
    shift = needed_shift(size, window_size, shift)
    if shift:
        qkv = qkv.roll((-shift, -shift), dims=(1, 2))
        apart = shifted_window_bias(size, window, (shift, shift), qkv.device)
        apart = apart[:, None]  # (n, 1, N, N)
        bias = apart if bias is None else bias + apart  # (n, h, N, N)
    qkv = split_windows(qkv, window).unflatten(-1, (3, num_heads, -1))
    q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, n, h, N, d)
    out = plain_attention(q, k, v, bias, scale)
    out = out.transpose(2, 3).flatten(-2)  # (B, n, N, C)
    out = merge_windows(out, window, size)
    return out.roll((shift, shift), dims=(1, 2)) if shift else out
