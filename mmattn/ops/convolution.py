"""Convolutions of maps whose channels lie last.

Axes: B batch, H W rows and columns of the map, C input channels, E output
channels, s side of a kernel, g groups.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiling import is_compiling
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .linear import NEEDS, linear, refuse_onednn, why_no_onednn


def depthwise_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    with_skip: bool = False,
    with_gelu: bool = False,
    impl: str = 'auto',
) -> Tensor:
    """Convolve each channel by itself, with zeros around the map.

    Args:
        x: ``(B, H, W, C)``.
        weight: Kernels, ``(C, 1, s, s)`` with odd ``s``.
        bias: ``(C, )``. Defaults to None, no bias.
        with_skip: Add ``x`` to the result. Defaults to False.
        with_gelu: Apply the GELU to the sum. Defaults to False.
        impl: ``'reference'``, ``'onednn'`` (as one call of that library where
            no gradient is asked for), another registered name, or ``'auto'``.
            Defaults to ``'auto'``.

    Returns:
        ``(B, H, W, C)``.
    """
    args = (x, weight, bias, with_skip, with_gelu)
    row = choose_implementation('depthwise_convolution', impl, *args)
    return row.function(*args)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`depthwise_convolution` as PyTorch has it, without more."""
    out = F.conv2d(
        x.permute(0, 3, 1, 2),
        weight,
        bias,
        padding=weight.shape[-1] // 2,
        groups=len(weight),
    )
    return out.permute(0, 2, 3, 1)


@register_implementation('depthwise_convolution', 'reference')
def _reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    with_skip: bool,
    with_gelu: bool,
) -> Tensor:
    out = convolve(x, weight, bias)
    out = x + out if with_skip else out
    return F.gelu(out) if with_gelu else out


@register_implementation(
    'depthwise_convolution',
    'onednn',
    needs=NEEDS,
    priority=20,
    missing=why_no_onednn,
    refuses=refuse_onednn,
)
def _onednn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    with_skip: bool,
    with_gelu: bool,
) -> Tensor:
    if with_skip:
        weight = add_skip(weight)
    if not with_gelu or torch.is_grad_enabled():
        out = convolve(x, weight, bias)
        return F.gelu(out) if with_gelu else out
    out = torch.ops.mkldnn._convolution_pointwise(
        x.permute(0, 3, 1, 2),
        weight,
        # The operator does not look at its strides.
        None if bias is None else bias.contiguous(),
        [weight.shape[-1] // 2] * 2,
        [1, 1],
        [1, 1],
        len(weight),
        'gelu',
        [],
        'none',  # the GELU's algorithm: no tanh
    )
    return out.permute(0, 2, 3, 1)


def add_skip(weight: Tensor) -> Tensor:
    """Kernels that also add what they are applied to."""
    side = weight.shape[-1]
    skip = weight.new_zeros(side, side)
    skip[side // 2, side // 2] = 1
    return weight + skip


def convolution_gradients(
    x: Tensor, weight: Tensor, grad: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of :func:`convolve`, without gradients themselves.

    Args:
        x: ``(B, H, W, C)``.
        weight: Kernels, ``(C, 1, s, s)``.
        grad: Gradient of the result, ``(B, H, W, C)``.
        needed: Which of the three to compute.

    Returns:
        Of ``x``, of the kernels and of the bias, each None if not needed.
    """
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad.permute(0, 3, 1, 2),
        x.permute(0, 3, 1, 2),
        weight,
        [len(weight)],
        [1, 1],
        [weight.shape[-1] // 2] * 2,
        [1, 1],
        False,
        [0, 0],
        len(weight),
        needed,
    )
    if grad_x is not None:
        grad_x = grad_x.permute(0, 2, 3, 1)
    return grad_x, grad_weight, grad_bias


def grouped_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    with_gelu: bool = False,
    impl: str = 'auto',
) -> Tensor:
    """Multiply each group of channels by a matrix of its own.

    A convolution of side 1 with groups.

    Args:
        x: ``(B, H, W, C)``.
        weight: The matrices, ``(E, C / g)``.
        bias: ``(E, )``.
        num_groups: Groups g.
        with_gelu: Apply the GELU to the result. Defaults to False.
        impl: ``'reference'``, ``'dense'`` (one matrix, zero between the
            groups), another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

    Returns:
        ``(B, H, W, E)``.
    """
    args = (x, weight, bias, num_groups, with_gelu)
    row = choose_implementation('grouped_linear', impl, *args)
    return row.function(*args)


@register_implementation('grouped_linear', 'reference')
def _grouped_reference(
    x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, with_gelu: bool
) -> Tensor:
    out = F.conv2d(
        x.permute(0, 3, 1, 2), weight[..., None, None], bias, groups=num_groups
    )
    out = out.permute(0, 2, 3, 1)
    return F.gelu(out) if with_gelu else out


def _refuse_dense(x: Tensor, weight: Tensor, *args) -> Reason:
    if is_compiling():
        return 'a compiler follows the definition'
    if x.device.type != 'cpu':
        return f'it runs on a CPU, got {x.device}'
    return None


@register_implementation(
    'grouped_linear',
    'dense',
    needs='a CPU, where groups of few channels are slower than none',
    priority=20,
    refuses=_refuse_dense,
)
def _dense(
    x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, with_gelu: bool
) -> Tensor:
    g = num_groups
    own = torch.eye(g, dtype=weight.dtype, device=weight.device)
    weight = weight.unflatten(0, (g, -1))[:, :, None]  # (g, E / g, 1, C / g)
    weight = (own[:, None, :, None] * weight).flatten(2).flatten(0, 1)
    return linear(x, weight, bias, with_gelu)
