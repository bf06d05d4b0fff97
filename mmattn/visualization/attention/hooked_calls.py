"""Attention weights, from a call of the layer itself."""

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor
from torch.func import functional_call

from .explanations import Token


def count_heads(layer: nn.Module) -> int:
    """The ``num_heads`` of a layer or of its first child that has one."""
    return next(
        m.num_heads for m in layer.modules() if hasattr(m, 'num_heads')
    )


def attention_rows(
    layer: nn.Module,
    inputs: Sequence[Tensor],
    tokens: Sequence[Token],
    values: nn.Module,
    proj: nn.Module | None = None,
    zeroed: Sequence[str] = (),
    with_keys: bool = True,
) -> Tensor:
    """Attention weights of a few tokens.

    The output of attention is linear in the values, separately in each head.
    So the weights are the derivative of a token's output with respect to the
    values. The layer itself is called, with its windows, masks and clusters;
    no second implementation can differ from it.

    Args:
        layer: The layer in evaluation mode.
        inputs: Arguments of the call, for one image.
        tokens: ``(row, column)`` on the output map.
        values: Child that returns the values ``(1, *, C)``, or queries, keys
            and values concatenated, ``(1, *, 3 * C)``.
        proj: Child that takes the attended values ``(1, H, W, C)``. Defaults
            to None: the layer returns them.
        zeroed: Names of parameters to replace by zeros: those of terms that
            are added to the attended values. Defaults to none.
        with_keys: If False, the keys next to the values are replaced by
            zeros, so only biases and masks matter. Defaults to True.

    Returns:
        ``(t, h, *)``, where ``*`` are the axes of the values between batch
        and channels.
    """
    zeros = {name: 0 * layer.get_parameter(name) for name in zeroed}
    C = inputs[0].shape[-1]
    heads = count_heads(layer)
    leaves, calls = [], []

    def make_leaf(_: nn.Module, args: tuple, out: Tensor) -> Tensor:
        *before, v = out.detach().split(C, dim=-1)
        if not with_keys:
            before[1] = torch.zeros_like(before[1])
        leaves.append(v.requires_grad_())
        return torch.cat((*before, v), dim=-1)

    with (
        torch.enable_grad(),
        values.register_forward_hook(make_leaf),
        (proj or layer).register_forward_hook(lambda *x: calls.append(x)),
    ):
        functional_call(layer, zeros, tuple(inputs))
        _, (attended, *_), result = calls[-1]
        out = result if proj is None else attended  # (1, H, W, C)
        out = out[0].unflatten(-1, (heads, -1))[..., 0]  # (H, W, h)
        rows = [
            torch.autograd.grad(out[token].sum(), leaves, retain_graph=True)
            for token in tokens
        ]
    rows = torch.cat([row for (row,) in rows])  # (t, *, C)
    rows = rows.unflatten(-1, (heads, -1))[..., 0]
    return rows.movedim(-1, 1)
