"""Depthwise convolutions by the kernels of ``convolution.cpp``.

Axes: B batch, H W rows and columns of the map, C = h * c channels, h heads,
c channels of a head, s_i side of the kernels of head i.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..compiling import (
    asks_for_gradient,
    differentiable_gradients,
    is_autocast_on_cpu,
)
from ..implementations import Reason
from .library import call, plain, refuse_cpp


def refuse_convolution(x: Tensor, *parameters: Tensor | None) -> Reason:
    """Why the kernels cannot take a map, its kernels and biases, or None."""
    if is_autocast_on_cpu():
        return 'autocast casts the definition only'
    if not x.numel():
        return f'it takes at least one value, got {tuple(x.shape)}'
    return refuse_cpp(x, *parameters)


def convolve_heads(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    define: Callable[..., Tensor],
    with_skip: bool = False,
    with_gelu: bool = False,
) -> Tensor:
    """Convolve each channel by itself, each head at its own scale.

    Args:
        x: ``(B, H, W, C)``.
        weights: Kernels of each head, ``(c, 1, s_i, s_i)`` with odd ``s_i``.
        biases: Bias of each head, ``(c, )``, or None for all.
        define: Computes the same by operations of PyTorch, from ``x``, all
            weights and all biases, for gradients of gradients.
        with_skip: Add ``x`` to the result. Defaults to False.
        with_gelu: Apply the GELU to the sum; only for one head. Defaults to
            False.

    Returns:
        ``(B, H, W, C)``; channel j of head i is channel ``j * h + i``.
    """
    parameters = (*weights, *biases)
    if asks_for_gradient(x, *parameters):
        return _Convolution.apply(define, with_skip, with_gelu, x, *parameters)
    return convolution(x, weights, biases, with_skip, with_gelu)[-1]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        define: Callable[..., Tensor],
        with_skip: bool,
        with_gelu: bool,
        x: Tensor,
        *parameters: Tensor | None,
    ) -> Tensor:
        h = len(parameters) // 2
        weights, biases = parameters[:h], parameters[h:]
        sums, out = convolution(x, weights, biases, with_skip, with_gelu, True)
        sums = sums if with_gelu else None
        ctx.save_for_backward(sums, x, *parameters)
        ctx.define, ctx.with_skip = define, with_skip
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        sums, *inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            grads = differentiable_gradients(ctx.define, inputs, grad, needed)
            return None, None, None, *grads
        h = len(inputs) // 2
        grad_x, grad_weights, grad_biases = convolution_back(
            inputs[0],
            inputs[1 : h + 1],
            ctx.with_skip,
            grad,
            (needed[0], any(needed[1 : h + 1]), any(needed[h + 1 :])),
            sums,
        )
        grads = (grad_x, *grad_weights, *grad_biases)
        grads = [g if need else None for g, need in zip(grads, needed)]
        return None, None, None, *grads


def convolution(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    with_skip: bool = False,
    with_gelu: bool = False,
    with_sums: bool = False,
) -> tuple[Tensor, Tensor]:
    """:func:`convolve_heads`, without gradients.

    With ``with_sums`` what lies before the GELU is kept.

    Returns:
        The sums (the result, where they are not kept) and the result.
    """
    x, step = _pixels(x)
    out = x.new_empty(x.shape)
    active = torch.empty_like(out) if with_gelu and with_sums else None
    call(
        'depthwise',
        x,
        step,
        _flat(weights),
        None if biases[0] is None else _flat_biases(biases, weights),
        *_shape(x, weights, with_skip),
        out,
        active,
        int(with_gelu),
        torch.get_num_threads(),
    )
    return out, out if active is None else active


def convolution_back(
    x: Tensor,
    weights: Sequence[Tensor],
    with_skip: bool,
    grad: Tensor,
    needed: Sequence[bool],
    sums: Tensor | None = None,
    active: Tensor | None = None,
) -> tuple[Tensor | None, Sequence[Tensor | None], Sequence[Tensor | None]]:
    """Gradients of :func:`convolution`.

    Args:
        x: ``(B, H, W, C)``.
        weights: Kernels of each head, ``(c, 1, s_i, s_i)``.
        with_skip: As it was.
        grad: Gradient of the result, ``(B, H, W, C)``.
        needed: Which to compute: of ``x``, of the kernels, of the biases.
        sums: What lay before the GELU; only for one head. Defaults to None,
            there was none.
        active: Where the GELU of ``sums`` goes, ``(B, H, W, C)``. Defaults
            to None, nowhere.

    Returns:
        Of ``x``; of the kernels of each head; of the bias of each head. None
        for each that is not needed.
    """
    h, c = len(weights), len(weights[0])
    x, step = _pixels(x)
    flat = _flat(weights)
    grad_x = x.new_empty(x.shape) if needed[0] else None
    grad_flat = torch.empty_like(flat) if needed[1] else None
    grad_bias = x.new_empty(h * c) if needed[2] else None
    call(
        'depthwise_back',
        x,
        step,
        plain(grad),
        flat,
        *_shape(x, weights, with_skip),
        None if sums is None else sums.contiguous(),
        active,
        grad_x,
        grad_flat,
        grad_bias,
        torch.get_num_threads(),
    )
    grad_weights = grad_biases = [None] * h
    if needed[1]:
        parts = grad_flat.split([w.numel() for w in weights])
        grad_weights = [g.view(w.shape) for g, w in zip(parts, weights)]
    if needed[2]:
        grad_biases = grad_bias.split(c)
    return grad_x, grad_weights, grad_biases


def _pixels(x: Tensor) -> tuple[Tensor, int]:
    """A map whose pixels follow each other, and what lies between two.

    Some channels of a wider map are taken as they are.
    """
    _, H, W, C = x.shape
    step = x.stride(2)
    if x.stride() != (H * W * step, W * step, step, 1):
        return x.contiguous(), C
    return x, step


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0].contiguous().flatten()
    return torch.cat([x.flatten() for x in tensors])


def _flat_biases(
    biases: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    shapes = [tuple(b.shape) for b in biases]
    if shapes != [(len(w),) for w in weights]:
        raise ValueError(
            f'convolutions expect a bias ({len(weights[0])},) for each of '
            f'{len(weights)} heads, got {shapes}'
        )
    return _flat(biases)


def _shape(
    x: Tensor, weights: Sequence[Tensor], with_skip: bool
) -> tuple[Tensor | int, ...]:
    """Arguments that tell the kernels what they look at.

    Raises:
        ValueError: If the kernels do not fit the channels or have even sides.
    """
    h, c = len(weights), len(weights[0])
    sides = [w.shape[-1] for w in weights]
    fits = x.shape[-1] == h * c and all(side % 2 for side in sides)
    shapes = [tuple(w.shape) for w in weights]
    if not fits or shapes != [(c, 1, side, side) for side in sides]:
        raise ValueError(
            'convolutions expect for each head of the channels kernels '
            f'(c, 1, s, s) of odd s, got {tuple(x.shape)} and {shapes}'
        )
    sides = torch.tensor(sides, device='cpu')
    return sides, h, c, int(with_skip), *x.shape[:3]


def expand_heads(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    matrices: Tensor,
    bias: Tensor,
) -> Tensor:
    """Convolve heads, widen the groups that hold one channel of each, GELU.

    Args:
        x: ``(B, H, W, C)``.
        weights: Kernels of each head, ``(c, 1, s_i, s_i)`` with odd ``s_i``.
        biases: Bias of each head, ``(c, )``.
        matrices: Of each group, one after the other, ``(c * e, h)``.
        bias: ``(c * e, )``.

    Returns:
        ``(B, H, W, c * e)``, without gradients.
    """
    x, step = _pixels(x)
    out = x.new_empty(*x.shape[:3], len(matrices))
    sides, h, c, _, *size = _shape(x, weights, False)
    call(
        'expand',
        x,
        step,
        _flat(weights),
        _flat_biases(biases, weights),
        sides,
        h,
        c,
        *size,
        len(matrices) // c,
        matrices.contiguous(),
        bias.contiguous(),
        out,
        torch.get_num_threads(),
    )
    return out


def gelu_back(sums: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The GELU, and the gradient of what it was applied to, in one pass.

    Args:
        sums: What it was applied to.
        grad: Gradient of the result, of the same shape.

    Returns:
        ``GELU(sums)`` and the gradient of ``sums``.
    """
    sums, grad = sums.contiguous(), plain(grad)
    active, grad_sums = torch.empty_like(sums), torch.empty_like(sums)
    threads = torch.get_num_threads()
    call('gelu_back', sums, grad, active, grad_sums, sums.numel(), threads)
    return active, grad_sums
