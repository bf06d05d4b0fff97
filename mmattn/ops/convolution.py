"""Depthwise convolutions of maps whose channels lie last.

Axes: B batch, H W rows and columns of the map, C channels, s side of a kernel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiling import compiles_for_sizes, narrowed
from .cpu_kernels import register_kernel
from .cpu_kernels.convolution import (
    convolution,
    convolution_back,
    convolve_heads,
    gelu_back,
    refuse_convolution,
)
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .linear import NEEDS, refuse_onednn, why_no_onednn
from .operators import define_operator


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
        impl: ``'reference'``, ``'cpp'`` (one kernel), ``'onednn'`` (one call
            of that library where no gradient is asked for), another
            registered name, or ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(B, H, W, C)``.

    Raises:
        ValueError: If kernels or bias do not fit the channels, or kernels
            have even sides.
    """
    C, side = x.shape[-1], weight.shape[-1]
    fits = x.ndim == 4 and weight.shape == (C, 1, side, side) and side % 2
    if not fits or (bias is not None and bias.shape != (C,)):
        raise ValueError(
            'depthwise_convolution expects x (B, H, W, C), a weight '
            '(C, 1, s, s) of odd s and a bias (C,) or None, got '
            f'{tuple(x.shape)}, {tuple(weight.shape)} and '
            f'{None if bias is None else tuple(bias.shape)}'
        )
    args = (x, weight, bias, with_skip, with_gelu)
    row = choose_implementation('depthwise_convolution', impl, *args)
    if compiles_for_sizes(x) and not row.any_size:
        return _depthwise_for_any_size(*narrowed(*args[:3]), *args[3:], impl)
    return row.function(*args)


def _empty_like(x: Tensor, *args) -> Tensor:
    return x.new_empty(x.shape)


_depthwise_for_any_size = define_operator(
    'depthwise_convolution_for_any_size',
    'Tensor x, Tensor weight, Tensor? bias, bool with_skip, bool with_gelu, '
    'str impl',
    depthwise_convolution,
    _empty_like,
)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As PyTorch has it, without more."""
    side = int(weight.shape[-1])  # torch.jit.trace has tensors for sizes
    out = F.conv2d(
        x.permute(0, 3, 1, 2),
        weight,
        bias,
        padding=side // 2,
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
    out = _convolve(x, weight, bias)
    out = x + out if with_skip else out
    return F.gelu(out) if with_gelu else out


def _refuse_cpp(
    x: Tensor, weight: Tensor, bias: Tensor | None, *args
) -> Reason:
    return refuse_convolution(x, weight, bias)


@register_kernel('depthwise_convolution', priority=30, refuses=_refuse_cpp)
def _cpp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    with_skip: bool,
    with_gelu: bool,
) -> Tensor:
    def define(*inputs: Tensor | None) -> Tensor:
        return _reference(*inputs, with_skip, with_gelu)

    return convolve_heads(x, [weight], [bias], define, with_skip, with_gelu)


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
        weight = _add_skip(weight)
    if not with_gelu or torch.is_grad_enabled():
        out = _convolve(x, weight, bias)
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


def _add_skip(weight: Tensor) -> Tensor:
    """Kernels that also add what they are applied to."""
    side = weight.shape[-1]
    skip = weight.new_zeros(side, side)
    skip[side // 2, side // 2] = 1
    return weight + skip


def convolve_and_activate(
    x: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Convolve, add ``x`` and apply the GELU, without gradients.

    Args:
        x: ``(B, H, W, C)``; without a convolution, ``(*, C)``.
        weight: Kernels, ``(C, 1, s, s)``, or None for no convolution.
        bias: ``(C, )``, or None for no bias.

    Returns:
        What the GELU is applied to, and its result.
    """
    if weight is None:
        return x, F.gelu(x)
    if refuse_convolution(x, weight, bias) is None:
        return convolution(x, [weight], [bias], True, True, True)
    sums = _convolve(x, _add_skip(weight), bias)
    return sums, F.gelu(sums)


def gradients_through_gelu(
    x: Tensor,
    weight: Tensor | None,
    sums: Tensor,
    grad: Tensor,
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of :func:`convolve_and_activate`, and its result again.

    Args:
        x: As it was.
        weight: As it was.
        sums: What the GELU was applied to.
        grad: Gradient of the result.
        needed: Which gradients to compute.

    Returns:
        The result, and the gradients of ``x``, of the kernels and of the
        bias, each None if not needed.
    """
    refused = refuse_convolution(sums, grad, weight) is not None
    if weight is not None and not refused:
        active = torch.empty_like(sums)
        grad_x, (grad_weight,), (grad_bias,) = convolution_back(
            x, [weight], True, grad, needed, sums, active
        )
        return active, grad_x, grad_weight, grad_bias
    if refused:
        active = F.gelu(sums)
        grad = torch.ops.aten.gelu_backward(grad, sums)
    else:
        active, grad = gelu_back(sums, grad)
    if weight is None:
        return active, grad, None, None
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad.permute(0, 3, 1, 2),
        x.permute(0, 3, 1, 2),
        _add_skip(weight),
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
    return active, grad_x, grad_weight, grad_bias
