"""Two affine maps of the channels of every token, with a GELU between.

Axes: ``*`` any leading axes, C input channels, D hidden channels, E output
channels; B batch, H W rows and columns of a map, s side of a kernel.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .compiling import asks_for_gradient, differentiable_gradients
from .convolution import (
    convolve_and_activate,
    depthwise_convolution,
    gradients_through_gelu,
)
from .cpu_kernels import NEEDS as CPP_NEEDS
from .cpu_kernels import register_kernel
from .cpu_kernels.linear import (
    CHANNELS,
    FEWEST_TOKENS,
    fused_perceptron,
    refuse_layers,
)
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .linear import (
    NEEDS,
    linear,
    linear_gradients,
    refuse_gradients,
    refuse_linear,
    refuse_onednn,
    why_no_onednn,
)

# Hidden values of the tokens that are taken at a time. So few stay in the
# caches on their way from one product to the next; fewer make the products
# themselves slower.
_MOST_HIDDEN = 2**22


def perceptron(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    kernels: Tensor | None = None,
    kernel_bias: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Multiply by a matrix, activate, multiply by another matrix.

    ``GELU(h) weight2^T + bias2`` with ``h = x weight1^T + bias1`` and the GELU
    of https://arxiv.org/abs/1606.08415 by the error function. With
    ``kernels``, a depthwise convolution of ``h`` is added to it before, with
    zeros around the map.

    Args:
        x: ``(*, C)``; with ``kernels``, ``(B, H, W, C)``.
        weight1: ``(D, C)``.
        bias1: ``(D, )``, or None for no bias.
        weight2: ``(E, D)``.
        bias2: ``(E, )``, or None for no bias.
        kernels: Of the convolution, ``(D, 1, s, s)`` with odd ``s``. Defaults
            to None, no convolution.
        kernel_bias: Its bias, ``(D, )``. Defaults to None, no bias.
        impl: ``'reference'``, ``'cpp'`` or ``'onednn'`` (both take some
            tokens or images at a time, and keep nothing behind the GELU for
            the backward pass), another registered name, or ``'auto'``.
            Defaults to ``'auto'``.

    Returns:
        ``(*, E)``.
    """
    args = (x, weight1, bias1, weight2, bias2, kernels, kernel_bias)
    return choose_implementation('perceptron', impl, *args).function(*args)


@register_implementation('perceptron', 'reference')
def _reference(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    kernels: Tensor | None,
    kernel_bias: Tensor | None,
) -> Tensor:
    if kernels is None:
        hidden = linear(x, weight1, bias1, with_gelu=True)
    else:
        hidden = depthwise_convolution(
            linear(x, weight1, bias1),
            kernels,
            kernel_bias,
            with_skip=True,
            with_gelu=True,
        )
    return linear(hidden, weight2, bias2)


def _refuse(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    kernels: Tensor | None,
    kernel_bias: Tensor | None,
) -> Reason:
    # Of the second layer as if the first one's weights were its tokens: they
    # have as many columns as it has inputs, transposed.
    reason = refuse_linear(x, weight1, bias1)
    reason = reason or refuse_linear(weight1.t(), weight2, bias2)
    if reason is None and kernels is not None:
        reason = refuse_onednn(x, kernels, kernel_bias)
    return reason


@register_implementation(
    'perceptron',
    'onednn',
    needs=NEEDS,
    priority=20,
    missing=why_no_onednn,
    refuses=_refuse,
)
def _onednn(x: Tensor, *parameters: Tensor | None) -> Tensor:
    inputs = (x, *parameters)
    if asks_for_gradient(*inputs):
        return _Perceptron.apply(_in_pieces, *inputs)
    weight1, _, weight2, _, kernels, _ = parameters
    parts, size = _to_cut(x, weight1, kernels)
    if size == len(parts):
        return _reference(x, *parameters)
    out = x.new_empty(*parts.shape[:-1], len(weight2))
    for x_i, out_i in zip(parts.split(size), out.split(size)):
        out_i.copy_(_reference(x_i, *parameters))
    return out.view(*x.shape[:-1], len(weight2))


def _refuse_cpp(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    kernels: Tensor | None,
    kernel_bias: Tensor | None,
) -> Reason:
    if kernels is not None:
        return 'it takes no convolution'
    reason = refuse_layers(x, (weight1, bias1), (weight2, bias2))
    inputs = (x, weight1, bias1, weight2, bias2)
    if reason is None and asks_for_gradient(*inputs):
        return refuse_gradients(x, weight1, bias1)  # the second is alike
    return reason


@register_kernel(
    'perceptron',
    priority=30,
    refuses=_refuse_cpp,
    needs=f'{CPP_NEEDS}; no autocast; channels in multiples of {CHANNELS}; at '
    f'least {FEWEST_TOKENS} tokens; no convolution; for gradients what onednn '
    'needs',
)
def _cpp(x: Tensor, *parameters: Tensor | None) -> Tensor:
    inputs = (x, *parameters)
    if asks_for_gradient(*inputs):
        return _Perceptron.apply(_at_once, *inputs)
    return fused_perceptron(x, *parameters[:4])[0]


def _to_cut(
    x: Tensor, weight1: Tensor, kernels: Tensor | None
) -> tuple[Tensor, int]:
    """What to cut along its first axis, and how long a piece is.

    Tokens, or images where neighbours are needed; all pieces about as long.
    """
    if kernels is None:
        x = x.reshape(-1, x.shape[-1])
    num_hidden = x.shape[:-1].numel() * len(weight1)
    num_pieces = min(-(-num_hidden // _MOST_HIDDEN), len(x))
    return x, -(-len(x) // num_pieces)


def _in_pieces(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    kernels: Tensor | None,
    kernel_bias: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """The result, and the inputs of convolution and GELU of each piece."""
    parts, size = _to_cut(x, weight1, kernels)
    out = x.new_empty(*parts.shape[:-1], len(weight2))
    kept = []
    for x_i, out_i in zip(parts.split(size), out.split(size)):
        hidden = linear(x_i, weight1, bias1)  # no gradients are recorded
        mixed, active = convolve_and_activate(hidden, kernels, kernel_bias)
        kept += (hidden, mixed)
        out_i.copy_(linear(active, weight2, bias2))
    return out.view(*x.shape[:-1], len(weight2)), kept


def _at_once(
    x: Tensor, weight1: Tensor, *parameters: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """The same by one kernel, where there is no convolution."""
    out, hidden = fused_perceptron(x, weight1, *parameters[:3], keep=True)
    _, size = _to_cut(x, weight1, None)
    pieces = hidden.view(-1, len(weight1)).split(size)
    return out, [piece for piece in pieces for _ in range(2)]


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        compute: Callable[..., tuple[Tensor, list[Tensor]]],
        *inputs: Tensor | None,
    ) -> Tensor:
        out, kept = compute(*inputs)
        ctx.save_for_backward(*inputs, *kept)
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Once: recomputation (torch.utils.checkpoint) gives them one time.
        saved = ctx.saved_tensors
        inputs, kept = saved[:7], saved[7:]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            grads = differentiable_gradients(_reference, inputs, grad, needed)
            return None, *grads
        x, weight1, _, weight2, _, kernels, _ = inputs
        parts, size = _to_cut(x, weight1, kernels)
        grad = grad.reshape(*parts.shape[:-1], len(weight2))
        grad_x = torch.empty_like(parts) if needed[0] else None
        sums: list[Tensor | None] = [None] * 6
        for start in range(0, len(parts), size):
            piece = slice(start, start + size)
            i = 2 * (start // size)
            grad_x_i, *found = _gradients_of_piece(
                (parts[piece], *kept[i : i + 2]),
                (weight1, weight2, kernels),
                grad[piece],
                needed,
            )
            if needed[0]:
                grad_x[piece] = grad_x_i
            for j, part in enumerate(found):
                sums[j] = part if sums[j] is None else sums[j].add_(part)
        return None, grad_x if grad_x is None else grad_x.view(x.shape), *sums


def _gradients_of_piece(
    kept: tuple[Tensor, Tensor, Tensor],
    parameters: tuple[Tensor, Tensor, Tensor | None],
    grad: Tensor,
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    x, hidden, mixed = kept
    weight1, weight2, kernels = parameters
    need_hidden = any(needed[:3])
    need_mixed = need_hidden or any(needed[5:])
    grads1, grads_between = [None] * 3, [None] * 2
    if need_mixed:
        (of_active, *_) = linear_gradients(
            mixed, weight2, grad, (True, False, False)
        )
        active, of_hidden, *grads_between = gradients_through_gelu(
            hidden, kernels, mixed, of_active, (need_hidden, *needed[5:])
        )
    else:
        active = F.gelu(mixed)
    _, *grads2 = linear_gradients(active, weight2, grad, (False, *needed[3:5]))
    if need_hidden:
        grads1 = linear_gradients(x, weight1, of_hidden, needed[:3])
    return *grads1, *grads2, *grads_between
