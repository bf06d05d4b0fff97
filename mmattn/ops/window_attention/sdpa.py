"""Window attention by PyTorch's fused attention.

The fused kernels take four axes, also of a mask, and are fastest on contiguous
tensors. One copy splits and arranges queries, keys and values.
"""

from torch import Tensor

from ..attention import fused_attention
from ..dispatch import register_implementation
from ..windows import needed_shift, shifted_window_bias


@register_implementation('window_attention', 'sdpa', priority=10)
def sdpa(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    B, H, W, channels = qkv.shape
    h, M, C = num_heads, window_size, channels // 3
    rows, columns = H // M, W // M
    shift = needed_shift((H, W), M, shift)
    # Shifted windows have different masks.
    images, heads = B * rows * columns, h
    if shift:
        images, heads = B, rows * columns * h
        qkv = qkv.roll((-shift, -shift), dims=(1, 2))
        apart = shifted_window_bias(
            (H, W), (M, M), (shift, shift), qkv.device, qkv.dtype
        )[:, None]  # (n, 1, N, N)
        if bias is None:
            bias = apart.expand(-1, h, -1, -1)
        else:
            bias = bias.to(qkv.dtype) + apart  # (n, h, N, N)
        bias = bias.reshape(1, heads, M * M, M * M)
    elif bias is not None:
        bias = bias[None]
    qkv = qkv.reshape(B, rows, M, columns, M, 3, h, C // h)
    qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7)  # (3, B, r, c, h, M, M, d)
    q, k, v = qkv.reshape(3, images, heads, M * M, C // h).unbind()
    out = fused_attention(q, k, v, bias, scale)
    out = out.reshape(B, rows, columns, h, M, M, C // h)
    out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(B, H, W, C)
    return out.roll((shift, shift), dims=(1, 2)) if shift else out
