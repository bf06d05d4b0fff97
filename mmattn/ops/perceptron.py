"""Two affine maps of the channels of every token, with a GELU between.

Axes: ``*`` any leading axes, T tokens, C input channels, D hidden channels,
E output channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .linear import (
    NEEDS,
    linear,
    linear_gradients,
    multiply,
    refuse_linear,
    why_no_onednn,
)

# Hidden values of the tokens that are taken at a time. So few stay in the
# caches on their way from one product to the next; fewer make the products
# themselves slower.
_MOST_HIDDEN = 2**21


def perceptron(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    impl: str = 'auto',
) -> Tensor:
    """Multiply by a matrix, activate, multiply by another matrix.

    ``GELU(x weight1^T + bias1) weight2^T + bias2``, with the GELU of
    https://arxiv.org/abs/1606.08415 by the error function.

    Args:
        x: ``(*, C)``.
        weight1: ``(D, C)``.
        bias1: ``(D, )``, or None for no bias.
        weight2: ``(E, D)``.
        bias2: ``(E, )``, or None for no bias.
        impl: ``'reference'``, ``'onednn'`` (some tokens at a time; keeps the
            hidden values before the GELU alone), another registered name, or
            ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(*, E)``.
    """
    args = (x, weight1, bias1, weight2, bias2)
    return choose_implementation('perceptron', impl, *args).function(*args)


@register_implementation('perceptron', 'reference')
def _reference(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
) -> Tensor:
    return linear(linear(x, weight1, bias1, with_gelu=True), weight2, bias2)


def _refuse(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
) -> Reason:
    # Of the second layer as if the first one's weights were its tokens: they
    # have as many columns as it has inputs, transposed.
    return refuse_linear(x, weight1, bias1) or refuse_linear(
        weight1.t(), weight2, bias2
    )


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
    if torch.is_grad_enabled() and any(
        i is not None and i.requires_grad for i in inputs
    ):
        return _Perceptron.apply(*inputs)
    return _map_pieces(*inputs)[0]


def _map_pieces(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    with_hidden: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """The result; if asked for, the hidden values of each piece of tokens."""
    tokens = x.reshape(-1, x.shape[-1])
    out = x.new_empty(len(tokens), len(weight2))
    hidden = []
    size = _piece_size(len(tokens), len(weight1))
    for x_i, out_i in zip(tokens.split(size), out.split(size)):
        if with_hidden:
            hidden.append(multiply(x_i, weight1, bias1))
            active = F.gelu(hidden[-1])
        else:
            active = multiply(x_i, weight1, bias1, with_gelu=True)
        out_i.copy_(multiply(active, weight2, bias2))
    return out.view(*x.shape[:-1], len(weight2)), hidden


def _piece_size(num_tokens: int, hidden_dims: int) -> int:
    """Tokens of a piece, such that all pieces are about as large."""
    num_pieces = -(-num_tokens * hidden_dims // _MOST_HIDDEN)
    return -(-num_tokens // num_pieces)


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight1: Tensor,
        bias1: Tensor | None,
        weight2: Tensor,
        bias2: Tensor | None,
    ) -> Tensor:
        parameters = (weight1, bias1, weight2, bias2)
        out, hidden = _map_pieces(x, *parameters, with_hidden=True)
        ctx.save_for_backward(x, *parameters, *hidden)
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight1, bias1, weight2, bias2, *hidden = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():
            inputs = (x, weight1, bias1, weight2, bias2)
            return _differentiable(inputs, grad, needed)
        tokens = x.reshape(-1, x.shape[-1])
        grad = grad.reshape(-1, grad.shape[-1])
        size = len(hidden[0])
        grad_x = torch.empty_like(tokens) if needed[0] else None
        sums: list[Tensor | None] = [None] * 4
        for i, (x_i, grad_i) in enumerate(
            zip(tokens.split(size), grad.split(size))
        ):
            need_hidden = any(needed[:3])
            grad_i, *grads2 = linear_gradients(
                F.gelu(hidden[i]), weight2, grad_i, (need_hidden, *needed[3:])
            )
            grads1 = [None, None]
            if need_hidden:
                grad_i = torch.ops.aten.gelu_backward(grad_i, hidden[i])
                grad_x_i, *grads1 = linear_gradients(
                    x_i, weight1, grad_i, needed[:3]
                )
                if needed[0]:
                    grad_x[i * size : (i + 1) * size] = grad_x_i
            for j, part in enumerate((*grads1, *grads2)):
                sums[j] = part if sums[j] is None else sums[j].add_(part)
        return None if grad_x is None else grad_x.view(x.shape), *sums


def _differentiable(
    inputs: Sequence[Tensor | None], grad: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Gradients that have gradients, by the definition."""
    wanted = [x for x, need in zip(inputs, needed) if need]
    found = iter(
        torch.autograd.grad(
            _reference(*inputs), wanted, grad, create_graph=True
        )
    )
    return tuple(next(found) if need else None for need in needed)
