"""Explanations of attention layers, and a registry of functions for them.

Axes: t selected tokens, h heads, H W rows and columns of a map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

Token = tuple[int, int]


@dataclass(frozen=True)
class AttentionRows:
    """Attention weights of a few tokens.

    Attributes:
        weights: ``(t, h, H, W)``, at least 0; their sum over the map is 1
            minus the weight of padding.
        reach: ``(t, h, H, W)`` bool, True where a token can attend to. None
            means the whole map.
    """

    weights: Tensor
    reach: Tensor | None = None


@dataclass(frozen=True)
class Clusters:
    """Groups of tokens of a hierarchical clustering.

    Attributes:
        levels: One ``(h, H, W)`` int64 per bisection; bisection i has ``2 **
            (i + 1)`` groups. Group g splits into ``2 * g`` and ``2 * g + 1``.
    """

    levels: tuple[Tensor, ...]


@dataclass(frozen=True)
class Modulation:
    """Modulator of the values, made by convolutions of several sizes.

    Attributes:
        sides: Kernel size of each scale.
        scales: ``(len(sides), H, W)``, mean magnitude of each scale.
        modulator: ``(H, W)``, mean magnitude of the modulator.
    """

    sides: tuple[int, ...]
    scales: Tensor
    modulator: Tensor


Explanation = AttentionRows | Clusters | Modulation
Explainer = Callable[
    [nn.Module, tuple[Tensor, ...], Sequence[Token]], list[Explanation]
]

_EXPLAINERS: dict[type[nn.Module], Explainer] = {}


def register_explanation(
    *classes: type[nn.Module],
) -> Callable[[Explainer], Explainer]:
    """Register the decorated function for these classes and their subclasses.

    The function gets a layer in evaluation mode, the positional arguments of
    one call (for one image) and tokens as ``(row, column)`` of the first
    argument, a map ``(1, H, W, C)``.
    """

    def add(function: Explainer) -> Explainer:
        _EXPLAINERS.update(dict.fromkeys(classes, function))
        return function

    return add


def find_explanation(layer: nn.Module) -> Explainer | None:
    """The function of the layer's class or of its nearest base class."""
    classes = (cls for cls in type(layer).__mro__ if cls in _EXPLAINERS)
    return _EXPLAINERS.get(next(classes, None))


def explained_names() -> list[str]:
    """Names of the registered classes."""
    return sorted(cls.__name__ for cls in _EXPLAINERS)


def explain(
    layer: nn.Module, inputs: tuple[Tensor, ...], tokens: Sequence[Token]
) -> list[Explanation]:
    """Explain one call of a layer, which is left unchanged.

    Args:
        layer: A layer of a registered class.
        inputs: Arguments of the call, ``(B, ...)`` each; the first image is
            explained.
        tokens: ``(row, column)`` on the map that is the first argument.

    Raises:
        ValueError: If the class is not registered.
    """
    function = find_explanation(layer)
    if function is None:
        raise ValueError(
            f'{type(layer).__name__} cannot be explained; supported are '
            f'{explained_names()} and layers added with register_explanation'
        )
    # An image's result does not depend on the others. In mixed precision the
    # inputs may have another dtype than the weights.
    dtype = next(iter(layer.parameters())).dtype
    inputs = tuple(x[:1].detach().to(dtype) for x in inputs)
    modes = {module: module.training for module in layer.modules()}
    layer.eval()
    try:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return function(layer, inputs, tokens)
    finally:
        for module, mode in modes.items():
            module.training = mode
