"""Call a layer and look at, or change, what passes between its parts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor
from torch.func import functional_call

from .explanations import Token


@contextmanager
def changed_output(
    part: nn.Module, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Replace what ``part`` returns, as long as the context lasts."""
    handle = part.register_forward_hook(lambda _, args, out: change(out))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def recorded(part: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep ``'input'`` and ``'output'`` of the last call of ``part``."""
    kept: dict[str, Tensor] = {}

    def keep(_: nn.Module, args: tuple, out: Tensor) -> None:
        kept.update(input=args[0], output=out)

    handle = part.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def attention_rows(
    layer: nn.Module,
    inputs: Sequence[Tensor],
    tokens: Sequence[Token],
    values: nn.Module,
    mixed: nn.Module | None = None,
    beside: Sequence[str] = (),
    with_keys: bool = True,
) -> Tensor:
    """Weights by which a layer mixes its values, for a few tokens.

    What attention returns is linear in the values, each head's in its own:
    the derivative of a token's result with respect to a value *is* the
    weight. So the layer itself is called, with all of its windows, masks and
    clusters, and no second implementation can differ from it.

    Args:
        layer: The layer, in evaluation mode, of ``num_heads`` heads.
        inputs: What it is called with, one image.
        tokens: ``(row, column)`` on the map that comes out.
        values: The part of the layer that returns the values, ``(1, *, C)``,
            or queries, keys and values side by side, ``(1, *, 3 * C)``.
        mixed: The part that takes the mixed values ``(1, H, W, C)``.
            Defaults to None: the layer returns them.
        beside: Names of parameters that make up what is added to the mixed
            values; they are taken for zero. Defaults to none.
        with_keys: False takes the keys beside the values for zero, so that
            only biases and masks decide. Defaults to True.

    Returns:
        ``(t, h, *)``, ``*`` being the axes of the values between the batch
        and the channels.
    """
    parameters = dict(layer.named_parameters())
    zeros = {name: torch.zeros_like(parameters[name]) for name in beside}
    C = inputs[0].shape[-1]
    freed = []

    def free(out: Tensor) -> Tensor:
        *before, v = out.detach().split(C, dim=-1)
        if not with_keys:
            before[1] = torch.zeros_like(before[1])
        freed.append(v.requires_grad_())
        return torch.cat((*before, v), dim=-1)

    with (
        torch.enable_grad(),
        changed_output(values, free),
        recorded(mixed or layer) as kept,
    ):
        functional_call(layer, zeros, tuple(inputs))
        out = kept['output' if mixed is None else 'input'][0]  # (H, W, C)
        out = out.unflatten(-1, (layer.num_heads, -1))[..., 0]  # (H, W, h)
        rows = [
            torch.autograd.grad(out[token].sum(), freed, retain_graph=True)
            for token in tokens
        ]
    rows = torch.cat([row for (row,) in rows])  # (t, *, C)
    rows = rows.unflatten(-1, (layer.num_heads, -1))[..., 0]
    return rows.movedim(-1, 1)
