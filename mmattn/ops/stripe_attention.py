"""Attention inside the stripes of a map on a CPU, with its own gradients.

The definition is in ``cross_shaped_attention.py``. Here queries, keys and
values are copied once, from where the projection left them to where a batched
product reads them, and their gradients once on the way back.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, r s rows and columns of a stripe, R S stripes below and
beside each other, P = B * R * S * h groups, N = r * s tokens of a group, m
maps side by side in the channels: queries, keys and values, or the result.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .convolution import convolution_gradients, convolve
from .group_attention import LOG2_E, attend, gradients, refuse_create_graph
from .windows import Size, padded_size


def stripe_attention(
    qkv: Tensor,
    num_heads: int,
    windows: Sequence[Size],
    weight: Tensor,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Let every token attend to its stripe, one orientation beside another.

    Args:
        qkv: Queries, keys and values side by side, ``(B, H, W, 3 * C)``.
        num_heads: Heads h of all orientations.
        windows: Rows and columns of a stripe of each orientation, each of
            which takes as many heads as another.
        weight: Kernels of the convolution of the values, ``(C, 1, 3, 3)``.
        bias: Its bias, ``(C, )``, or None.
        scale: Factor of the products.

    Returns:
        ``(B, H, W, C)``. Its gradients have no gradients themselves: a
        backward pass with ``create_graph`` raises a ``RuntimeError``.
    """
    # Autocast would narrow the products, whatever the inputs' dtype.
    with torch.autocast('cpu', enabled=False):
        return _StripeAttention.apply(
            qkv, weight, bias, num_heads, windows, scale
        )


class _StripeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        qkv: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        num_heads: int,
        windows: Sequence[Size],
        scale: float,
    ) -> Tensor:
        qkv = qkv.unflatten(-1, (3, num_heads, -1))
        out = torch.empty_like(qkv[:, :, :, :1])  # (B, H, W, 1, h, d)
        d = qkv.shape[-1]
        kept = []
        for heads, window in _orientations(num_heads, windows):
            cut = _cut(qkv[..., heads, :], window)
            packed = _pack(cut)
            q, k, v = packed
            q *= scale * LOG2_E
            mixed = torch.empty_like(packed[:1])
            # Their weights would take more the longer a stripe is.
            attend(q, k, v, mixed[0], with_weights=False)
            kept.append(packed)
            channels = slice(heads.start * d, heads.stop * d)
            local = convolve(
                _stack(cut[..., 2:, :, :]),
                weight[channels],
                None if bias is None else bias[channels],
            )
            mixed = _unpack(mixed, (*cut.shape[:5], 1, *cut.shape[6:]))
            mixed += local.view(mixed.shape)
            _put(out[..., heads, :], mixed, window)
        ctx.save_for_backward(weight, *kept)
        ctx.shape, ctx.num_heads = qkv.shape, num_heads
        ctx.windows, ctx.scale = windows, scale
        return out.flatten(3)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_create_graph('groups')
        # As in the forward pass.
        with torch.autocast('cpu', enabled=False):
            return *_StripeAttention._backward(ctx, grad), None, None, None

    @staticmethod
    def _backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        grad = grad.unflatten(-1, (1, ctx.num_heads, -1))
        grad_qkv = grad.new_empty(ctx.shape)
        d = ctx.shape[-1]
        of_weight, of_bias = [], []
        orientations = _orientations(ctx.num_heads, ctx.windows)
        for i, (heads, window) in enumerate(orientations):
            packed = kept[i]
            cut = _cut(grad[..., heads, :], window)
            shape = (*cut.shape[:5], 3, *cut.shape[6:])
            grads = torch.empty_like(packed)
            gradients(None, packed.unbind(), _pack(cut)[0], grads.unbind())
            grads[0] *= ctx.scale
            grads = _unpack(grads, shape)
            of_values, of_weight_i, of_bias_i = convolution_gradients(
                _stack(_unpack(packed, shape)[..., 2:, :, :]),
                weight[heads.start * d : heads.stop * d],
                _stack(cut),
                (True, *ctx.needs_input_grad[1:3]),
            )
            grads[..., 2:, :, :] += of_values.reshape(cut.shape)
            _put(grad_qkv[..., heads, :], grads, window)
            of_weight.append(of_weight_i)
            of_bias.append(of_bias_i)
        return (
            grad_qkv.flatten(3),
            torch.cat(of_weight) if ctx.needs_input_grad[1] else None,
            torch.cat(of_bias) if ctx.needs_input_grad[2] else None,
        )


def _orientations(
    num_heads: int, windows: Sequence[Size]
) -> list[tuple[slice, Size]]:
    """Which heads attend inside which windows."""
    share = num_heads // len(windows)
    return [
        (slice(i * share, (i + 1) * share), window)
        for i, window in enumerate(windows)
    ]


def _corner(size: Size, window: Size) -> Size:
    """Rows and columns of padding before the first of a map."""
    padded = padded_size(size, window)
    return (padded[0] - size[0]) // 2, (padded[1] - size[1]) // 2


def _cut(x: Tensor, window: Size) -> Tensor:
    """Map ``(B, H, W, m, h, d)`` to ``(B, R, S, r, s, m, h, d)``.

    A view of the map, unless the windows do not divide it.
    """
    H, W = x.shape[1:3]
    size = padded_size((H, W), window)
    if size != (H, W):
        top, left = _corner((H, W), window)
        bottom, right = size[0] - H - top, size[1] - W - left
        x = F.pad(x, (0, 0) * 3 + (left, right, top, bottom))
    r, s = window
    return x.unflatten(1, (-1, r)).unflatten(3, (-1, s)).transpose(2, 3)


def _put(x: Tensor, cut: Tensor, window: Size) -> None:
    """Fill a map with what :func:`_cut` would have made of it."""
    H, W = x.shape[1:3]
    if padded_size((H, W), window) == (H, W):
        _cut(x, window).copy_(cut)
        return
    top, left = _corner((H, W), window)
    padded = cut.transpose(2, 3).flatten(1, 2).flatten(2, 3)
    x.copy_(padded[:, top : top + H, left : left + W])


def _pack(cut: Tensor) -> Tensor:
    """Lay ``(B, R, S, r, s, m, h, d)`` out as ``(m, P, N, d)``, a copy."""
    cut = cut.permute(5, 0, 1, 2, 6, 3, 4, 7)
    packed = cut.new_empty(cut.shape).copy_(cut)
    return packed.flatten(5, 6).flatten(1, 4)


def _unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """See what :func:`_pack` made of this shape, not copied, as it was."""
    B, R, S, r, s, m, h, d = shape
    packed = packed.view(m, B, R, S, h, r, s, d)
    return packed.permute(1, 2, 3, 5, 6, 0, 4, 7)


def _stack(cut: Tensor) -> Tensor:
    """Map ``(B, R, S, r, s, 1, h, d)`` to ``(B * R * S, r, s, h * d)``."""
    return cut.flatten(5).flatten(0, 2)
