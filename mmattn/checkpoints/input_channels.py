"""Adapt the stem of a checkpoint to another number of input channels."""

import math

import torch
from torch import Tensor

_RGB = 3


def adapt_input_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Adapt the weight of a convolution of RGB images.

    As ``adapt_input_conv`` of timm: the sum over the channels for one channel;
    otherwise the channels are repeated and scaled by ``3 / in_channels``, so
    that the sum over equal channels is kept.

    Args:
        weight: ``(C, 3, k, k)``.
        in_channels: Number of input channels, from 1 up.

    Returns:
        ``(C, in_channels, k, k)`` in the dtype of ``weight``.
    """
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeats = math.ceil(in_channels / _RGB)
    repeated = weight.repeat(1, repeats, 1, 1)[:, :in_channels]
    return repeated * (_RGB / in_channels)


def adapt_stem(
    state: dict[str, Tensor], model: dict[str, Tensor]
) -> list[str]:
    """Adapt the convolutions of RGB images in a state dict in place.

    Args:
        state: State dict of a checkpoint.
        model: State dict of the model that it is for.

    Returns:
        The names of the adapted weights: those with three input channels
        where the model has another number.
    """
    adapted = []
    for name, weight in state.items():
        wanted = model.get(name, torch.empty(0)).shape
        is_rgb = weight.ndim == 4 and weight.shape[1] == _RGB
        if is_rgb and len(wanted) == 4 and wanted[1] != _RGB:
            state[name] = adapt_input_channels(weight, wanted[1])
            adapted.append(name)
    return adapted
