"""Layer normalisation of the channels of every token.

Axes: ``*`` any leading axes, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .compiling import (
    asks_for_gradient,
    differentiable_gradients,
)
from .cpu_kernels import NEEDS, call, plain, refuse_cpp, register_kernel
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)

# Channels come in whole vectors, of which this is a multiple.
_VECTOR = 8


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    impl: str = 'auto',
) -> Tensor:
    """Give each token mean 0 and variance 1, then scale and shift channels.

    Source: https://arxiv.org/abs/1607.06450, section 3.

    Args:
        x: ``(*, C)``.
        weight: ``(C, )``. Defaults to None, ones.
        bias: ``(C, )``. Defaults to None, zeros.
        eps: Added to the variance. Defaults to 1e-5.
        impl: ``'reference'``, ``'cpp'``, another registered name, or
            ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(*, C)``.

    Raises:
        ValueError: If x has no axis, or weight or bias do not fit it.
    """
    affine = [tuple(y.shape) for y in (weight, bias) if y is not None]
    if not x.ndim or any(shape != tuple(x.shape[-1:]) for shape in affine):
        raise ValueError(
            'layer_norm expects x (*, C), and weight and bias (C,), got '
            f'{tuple(x.shape)} and {affine}'
        )
    args = (x, weight, bias, eps)
    return choose_implementation('layer_norm', impl, *args).function(*args)


@register_implementation('layer_norm', 'reference')
def _reference(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def _refuse(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Reason:
    reason = refuse_cpp(x, weight, bias)
    if reason is None and (not x.numel() or x.shape[-1] % _VECTOR):
        reason = (
            'it takes at least one value, and channels in multiples of '
            f'{_VECTOR}, got {tuple(x.shape)}'
        )
    return reason


@register_kernel(
    'layer_norm',
    priority=20,
    refuses=_refuse,
    needs=f'{NEEDS}; channels in multiples of {_VECTOR}',
)
def _cpp(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    # Here, where autograd sees it: what is kept may be differentiated again.
    x = x.contiguous()
    if asks_for_gradient(x, weight, bias):
        return _LayerNorm.apply(x, weight, bias, eps)
    return _normalize(x, weight, bias, eps, None)


def _normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    moments: Tensor | None,
) -> Tensor:
    weight, bias = (y if y is None else y.contiguous() for y in (weight, bias))
    out = torch.empty_like(x)
    C, threads = x.shape[-1], torch.get_num_threads()
    size = (x.numel() // C, C, float(eps), threads)
    call('normalize', x, weight, bias, out, moments, *size)
    return out


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        # The mean of each token, and one over its standard deviation.
        moments = x.new_empty(*x.shape[:-1], 2)
        ctx.save_for_backward(x, weight, bias, moments)
        ctx.eps = eps
        return _normalize(x, weight, bias, eps, moments)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, moments = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():

            def define(*inputs: Tensor | None) -> Tensor:
                return _reference(*inputs, ctx.eps)

            grads = differentiable_gradients(define, inputs, grad, needed)
            return *grads, None
        x, weight, _ = inputs
        C, threads = x.shape[-1], torch.get_num_threads()
        weight = weight if weight is None else weight.contiguous()
        grad_x, sums = torch.empty_like(x), x.new_zeros(threads, 2, C)
        size = (x.numel() // C, C, threads)
        call(
            'normalize_gradients',
            x,
            weight,
            moments,
            plain(grad),
            grad_x,
            sums,
            *size,
        )
        grads = (grad_x, *sums.sum(0))
        grads = [g if need else None for g, need in zip(grads, needed)]
        return *grads, None
