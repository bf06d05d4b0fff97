"""What can be shown of an attention layer, and who computes it.

Axes: t chosen tokens, h heads, H W rows and columns of a map. The table has a
function for each class of layers; another class is added with
:func:`register_explanation`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

Token = tuple[int, int]


@dataclass(frozen=True)
class AttentionRows:
    """How much a few tokens attend to each place of a map.

    Attributes:
        weights: ``(t, h, H, W)``, from 0. A row sums to 1, less what a token
            attends to outside of the map, in its padding.
        reach: ``(t, h, H, W)`` bool, the places that a token may attend to;
            None where that is the whole map.
    """

    weights: Tensor
    reach: Tensor | None = None


@dataclass(frozen=True)
class Clusters:
    """Which tokens a hierarchical clustering brings together.

    Attributes:
        levels: One ``(h, H, W)`` int64 for each bisection: ``2 ** (i + 1)``
            groups after bisection i. Group g is halved into ``2 * g`` and
            ``2 * g + 1``.
    """

    levels: tuple[Tensor, ...]


@dataclass(frozen=True)
class Modulation:
    """By what convolutions of several sizes multiply the values.

    Attributes:
        sides: Side of each scale's kernels, in tokens.
        scales: ``(len(sides), H, W)``, from 0: magnitude of each scale.
        modulator: ``(H, W)``, from 0: magnitude of what multiplies the
            values.
    """

    sides: tuple[int, ...]
    scales: Tensor
    modulator: Tensor


Explanation = AttentionRows | Clusters | Modulation
Explainer = Callable[
    [nn.Module, tuple[Tensor, ...], Sequence[Token]], list[Explanation]
]

_TABLE: dict[type[nn.Module], Explainer] = {}


def register_explanation(
    *kinds: type[nn.Module],
) -> Callable[[Explainer], Explainer]:
    """Add the decorated function to the table, for these classes.

    It takes a layer in evaluation mode, the positional inputs of one call of
    it (one image) and tokens as ``(row, column)`` of the first input, a map
    ``(1, H, W, C)``. Subclasses of a class are explained by the same
    function, unless they have one of their own.

    Raises:
        ValueError: If a class has a function already.
    """

    def add(function: Explainer) -> Explainer:
        for kind in kinds:
            if kind in _TABLE:
                raise ValueError(
                    'register_explanation expects a class without an '
                    f'explanation, got {kind.__name__}'
                )
            _TABLE[kind] = function
        return function

    return add


def find_explanation(layer: nn.Module) -> Explainer | None:
    """The function of the layer's class or of its nearest ancestor."""
    kinds = (kind for kind in type(layer).__mro__ if kind in _TABLE)
    return _TABLE.get(next(kinds, None))


def explained_names() -> list[str]:
    """Names of the classes of the table."""
    return sorted(kind.__name__ for kind in _TABLE)


def explain(
    layer: nn.Module, inputs: tuple[Tensor, ...], tokens: Sequence[Token]
) -> list[Explanation]:
    """Explain one call of a layer; the layer is left as it was.

    Args:
        layer: A layer of the table.
        inputs: What it was called with, ``(B, ...)`` each; the first image
            is explained.
        tokens: ``(row, column)`` on the map that is the first input.

    Raises:
        ValueError: If the layer is not in the table or a token not on the
            map.
    """
    function = find_explanation(layer)
    if function is None:
        raise ValueError(
            f'explain expects one of {explained_names()} or a layer added '
            f'with register_explanation, got {type(layer).__name__}'
        )
    H, W = inputs[0].shape[1:3]
    for row, column in tokens:
        if not (0 <= row < H and 0 <= column < W):
            raise ValueError(
                f'explain expects tokens on a map of {H} x {W}, got '
                f'{(row, column)}'
            )
    # What one image gives does not depend on the others. In a run of mixed
    # precision, inputs may have another type than the weights.
    dtype = next(iter(layer.parameters())).dtype
    inputs = tuple(x[:1].detach().to(dtype) for x in inputs)
    modes = {part: part.training for part in layer.modules()}
    layer.eval()
    try:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return function(layer, inputs, tokens)
    finally:
        for part, mode in modes.items():
            part.training = mode
