"""Scaled dot-product attention with an additive bias.

Axes: N queries, L keys, d channels of a key, e channels of a value; ``*`` any
leading axes (images, windows, heads).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import choose_implementation, register_implementation
from .tracing import without_autocast


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Mix the values by the softmax of the scaled query-key products.

    Source: https://arxiv.org/abs/1706.03762, equation 1:
    ``softmax(scale * q k^T + bias) v``.

    Args:
        q: Queries, ``(*, N, d)``.
        k: Keys, ``(*, L, d)``.
        v: Values, ``(*, L, e)``.
        bias: Added to the scores, broadcast to ``(*, N, L)``; minus infinity
            where a query must not attend. Every query needs one key that it
            may attend to. Defaults to None, no bias.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'`` (PyTorch's fused attention),
            another registered name, or ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(*, N, e)`` in the dtype of ``v``; the softmax runs in float32 or
        wider.

    Raises:
        ValueError: If the shapes of ``q``, ``k`` and ``v`` do not fit.
    """
    fits = (
        q.ndim >= 2
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and q.shape[-1] == k.shape[-1]
        and k.shape[-2] == v.shape[-2]
    )
    if not fits:
        raise ValueError(
            'attention expects q (*, N, d), k (*, L, d) and v (*, L, e), got '
            f'q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)}'
        )
    if scale is None:
        scale = int(q.shape[-1]) ** -0.5  # torch.jit.trace has tensors
    args = q, k, v, bias, scale
    return choose_implementation('attention', impl, *args)(*args)


@register_implementation('attention', 'reference')
def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    """The formula; the references of windows, stripes, clusters use it."""
    wide = torch.promote_types(v.dtype, torch.float32)
    # Autocast would narrow the products again.
    with without_autocast(v):
        scores = scale * q.to(wide) @ k.to(wide).mT  # (*, N, L)
        if bias is not None:
            scores = scores + bias.to(wide)
        out = scores.softmax(dim=-1) @ v.to(wide)  # (*, N, e)
    return out.to(v.dtype)


def _mixed_dtypes(q: Tensor, k: Tensor, v: Tensor, *args) -> str | None:
    if q.dtype == k.dtype == v.dtype:
        return None
    return 'it takes q, k and v of one dtype'


@register_implementation(
    'attention',
    'sdpa',
    requires='torch; one dtype',
    priority=10,
    why_not=_mixed_dtypes,
)
def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    lead = q.shape[:-2]
    if len(lead) != 2:
        # The fused kernels take four axes only. The leading axes along which
        # the bias varies become the second, those before them the first.
        varying = 1 if bias is None else max(bias.ndim - 2, 1)
        batch, heads = lead[:-varying], lead[-varying:]
        q, k, v = (
            # torch.Size.numel() would turn dynamic sizes into constants.
            x.reshape(math.prod(batch), math.prod(heads), *x.shape[-2:])
            for x in (q, k, v)
        )
        if bias is not None and bias.ndim > 2:
            bias = bias.expand(*heads, -1, -1).flatten(0, -3)
    if bias is not None and bias.ndim == 3:
        bias = bias[None]  # PyTorch is slower with three axes
    out = fused_attention(q, k, v, bias, scale)
    return out.reshape(*lead, *out.shape[-2:])


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    """PyTorch's fused attention, in the dtype of the inputs."""
    if bias is not None:
        bias = bias.to(q.dtype)
    # Autocast would narrow the result.
    with without_autocast(v):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, scale=scale
        )


def check_qkv(operation: str, qkv: Tensor, num_heads: int) -> None:
    """Raise ValueError unless ``qkv`` is ``(B, H, W, 3 * num_heads * d)``."""
    if qkv.ndim != 4 or num_heads < 1 or qkv.shape[3] % (3 * num_heads):
        raise ValueError(
            f'{operation} expects qkv (B, H, W, 3 * num_heads * d), got '
            f'{tuple(qkv.shape)} with {num_heads=}'
        )


def check_bias(
    operation: str, bias: Tensor | None, num_heads: int, num_tokens: int
) -> None:
    """Raise ValueError unless ``bias`` is None or ``(h, N, N)``."""
    shape = (num_heads, num_tokens, num_tokens)
    if bias is not None and bias.shape != shape:
        raise ValueError(
            f'{operation} expects a bias {shape}, got {tuple(bias.shape)}'
        )


def default_scale(qkv: Tensor, num_heads: int) -> float:
    """``d ** -0.5`` of queries, keys and values side by side."""
    # torch.jit.trace has tensors for sizes.
    return (int(qkv.shape[-1]) // (3 * int(num_heads))) ** -0.5
