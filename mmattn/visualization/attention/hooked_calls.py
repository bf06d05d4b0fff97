"""Call a layer while recording or replacing the outputs of its children."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor
from torch.func import functional_call

from .explanations import Token


@contextmanager
def changed_output(
    child: nn.Module, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Replace the output of ``child`` by ``change(output)``."""
    handle = child.register_forward_hook(lambda _, args, out: change(out))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def recorded(child: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record ``'input'`` and ``'output'`` of the last call of ``child``."""
    record: dict[str, Tensor] = {}

    def keep(_: nn.Module, args: tuple, out: Tensor) -> None:
        record.update(input=args[0], output=out)

    handle = child.register_forward_hook(keep)
    try:
        yield record
    finally:
        handle.remove()


def count_heads(layer: nn.Module) -> int:
    """The ``num_heads`` of a layer or of its first child that has one."""
    parts = (m for m in layer.modules() if hasattr(m, 'num_heads'))
    return next(parts).num_heads


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
    parameters = dict(layer.named_parameters())
    zeros = {name: torch.zeros_like(parameters[name]) for name in zeroed}
    C = inputs[0].shape[-1]
    heads = count_heads(layer)
    leaves = []

    def make_leaf(out: Tensor) -> Tensor:
        *before, v = out.detach().split(C, dim=-1)
        if not with_keys:
            before[1] = torch.zeros_like(before[1])
        leaves.append(v.requires_grad_())
        return torch.cat((*before, v), dim=-1)

    with (
        torch.enable_grad(),
        changed_output(values, make_leaf),
        recorded(proj or layer) as record,
    ):
        functional_call(layer, zeros, tuple(inputs))
        out = record['output' if proj is None else 'input'][0]  # (H, W, C)
        out = out.unflatten(-1, (heads, -1))[..., 0]  # (H, W, h)
        rows = [
            torch.autograd.grad(out[token].sum(), leaves, retain_graph=True)
            for token in tokens
        ]
    rows = torch.cat([row for (row,) in rows])  # (t, *, C)
    rows = rows.unflatten(-1, (heads, -1))[..., 0]
    return rows.movedim(-1, 1)
