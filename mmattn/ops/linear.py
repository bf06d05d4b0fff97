"""The affine map of the channels of every token.

Axes: ``*`` any leading axes, C input channels, E output channels.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import Parameter

from .compiling import (
    asks_for_gradient,
    is_autocast_on_cpu,
    is_compiling,
    is_transforming,
)
from .cpu_kernels import NEEDS as CPP_NEEDS
from .cpu_kernels import register_kernel
from .cpu_kernels.linear import (
    CHANNELS,
    FEWEST_TOKENS,
    fused_linear,
    refuse_layers,
)
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    with_gelu: bool = False,
    impl: str = 'auto',
) -> Tensor:
    """Multiply by a matrix, add a bias, and activate if asked to.

    Args:
        x: ``(*, C)``.
        weight: ``(E, C)``.
        bias: ``(E, )``. Defaults to None, no bias.
        with_gelu: Apply the GELU (https://arxiv.org/abs/1606.08415), with the
            error function, to the result. Defaults to False.
        impl: ``'reference'``, ``'cpp'`` (for many tokens), ``'onednn'`` (as
            one call of that library), another registered name, or
            ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(*, E)``.
    """
    args = (x, weight, bias, with_gelu)
    return choose_implementation('linear', impl, *args).function(*args)


@register_implementation('linear', 'reference')
def _reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, with_gelu: bool
) -> Tensor:
    out = F.linear(x, weight, bias)
    return F.gelu(out) if with_gelu else out


NEEDS = 'a CPU; float32; torch with oneDNN; no autocast, compiler or transform'
# The operator behind torch.compile's own fused linear layers. Looked up once:
# a compiler cannot follow the look-up.
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, '_linear_pointwise'
)


def why_no_onednn() -> Reason:
    """Why this torch cannot call oneDNN, or None."""
    return None if _HAS_ONEDNN else 'this torch was built without oneDNN'


def refuse_onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None, *args
) -> Reason:
    """Why oneDNN cannot take ``x``, ``weight`` and ``bias`` here, or None."""
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if is_compiling():
        return 'a compiler fuses the definition by itself'
    if is_transforming():
        return 'tracers and transforms follow the definition only'
    if any(type(t) not in (Tensor, Parameter) for t in tensors):
        return f'it takes plain tensors, got {[type(t) for t in tensors]}'
    if any(t.layout != torch.strided for t in tensors):
        return f'it takes dense tensors, got {[t.layout for t in tensors]}'
    if any(t.device.type != 'cpu' for t in tensors):
        return f'it runs on a CPU, got {[str(t.device) for t in tensors]}'
    if any(t.dtype != torch.float32 for t in tensors):
        return f'it takes float32, got {[t.dtype for t in tensors]}'
    if x.numel() == 0:
        return f'it takes at least one value, got {tuple(x.shape)}'
    if is_autocast_on_cpu():
        return 'autocast casts the definition only'
    if not torch.backends.mkldnn.enabled:
        return 'torch.backends.mkldnn.enabled is False'
    return None


def refuse_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, *args
) -> Reason:
    """Why oneDNN cannot take them as a linear layer, or None."""
    reason = refuse_onednn(x, weight, bias)
    if reason is not None:
        return reason
    shapes = [tuple(t.shape) for t in (x, weight, bias) if t is not None]
    if shapes[1:] not in (
        [(len(weight), x.shape[-1])],
        [(len(weight), x.shape[-1]), (len(weight),)],
    ):
        return f'it takes (*, C), (E, C) and (E,), got {shapes}'
    return None


@register_implementation(
    'linear',
    'onednn',
    needs=NEEDS,
    priority=20,
    missing=why_no_onednn,
    refuses=refuse_linear,
)
def _onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None, with_gelu: bool
) -> Tensor:
    return _linear(multiply, x, weight, bias, with_gelu)


def _refuse_cpp(
    x: Tensor, weight: Tensor, bias: Tensor | None, with_gelu: bool
) -> Reason:
    reason = refuse_layers(x, (weight, bias))
    if reason is None and asks_for_gradient(x, weight, bias):
        return refuse_gradients(x, weight, bias)
    return reason


def refuse_gradients(*inputs: Tensor | None) -> Reason:
    """Why oneDNN cannot compute the gradients of a linear layer, or None."""
    reason = why_no_onednn() or refuse_linear(*inputs)
    return reason and f'gradients need oneDNN: {reason}'


@register_kernel(
    'linear',
    priority=30,
    refuses=_refuse_cpp,
    needs=f'{CPP_NEEDS}; no autocast; channels in multiples of {CHANNELS}; at '
    f'least {FEWEST_TOKENS} tokens; for gradients what onednn needs',
)
def _cpp(
    x: Tensor, weight: Tensor, bias: Tensor | None, with_gelu: bool
) -> Tensor:
    return _linear(fused_linear, x, weight, bias, with_gelu)


def _linear(
    compute: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    with_gelu: bool,
) -> Tensor:
    if asks_for_gradient(x, weight, bias):
        out = _Linear.apply(compute, x, weight, bias)
        return F.gelu(out) if with_gelu else out
    return compute(x, weight, bias, with_gelu)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        compute: Callable[..., Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        return compute(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        return None, *linear_gradients(*ctx.saved_tensors, grad, needed)


# With fewer, oneDNN's copies of what is transposed cost what it gains. So
# they do with more rows than columns, or where its result is transposed.
_FEWEST_CHANNELS = 384


def linear_gradients(
    x: Tensor, weight: Tensor, grad: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a linear layer, with gradients themselves if asked for.

    Args:
        x: ``(*, C)``.
        weight: ``(E, C)``.
        grad: Gradient of the result, ``(*, E)``.
        needed: Which of the three to compute.

    Returns:
        Of ``x``, of ``weight`` and of the bias, each None if not needed.
    """
    need_x, need_weight, need_bias = needed
    grad_x = grad_weight = grad_bias = None
    # The operator has no gradient, in case one is asked for.
    again = torch.is_grad_enabled()
    if need_x:
        grad_x = grad @ weight if again else multiply(grad, weight.t())
    if need_weight or need_bias:
        grad = grad.reshape(-1, grad.shape[-1])
    if need_weight:
        x = x.reshape(-1, x.shape[-1])
        E, C = weight.shape
        if again or E >= C or E < _FEWEST_CHANNELS:
            grad_weight = grad.t() @ x
        else:
            grad_weight = multiply(grad.t(), x.t())
    if need_bias:
        grad_bias = grad.sum(0)
    return grad_x, grad_weight, grad_bias


def multiply(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    with_gelu: bool = False,
) -> Tensor:
    """:func:`linear` by oneDNN, for what it does not refuse; no gradients."""
    if bias is not None:
        bias = bias.contiguous()  # the operator does not look at its strides
    post = ('gelu', [], 'none') if with_gelu else ('none', [], '')  # no tanh
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *post)
