"""Affine maps of channels, by the kernels of ``linear.cpp`` and of
``perceptron.cpp``.

Axes: ``*`` any leading axes, C input channels, D hidden channels, E output
channels.
"""

import torch
from torch import Tensor

from ..compiling import is_autocast_on_cpu
from ..implementations import Reason
from .library import call, refuse_tensors, why_no_kernels

# Channels come in whole vectors, of which this is a multiple.
CHANNELS = 8
# With fewer, laying out the matrices takes longer than is gained.
FEWEST_TOKENS = 512
# What the parts of matrices that are multiplied with at a time may fill: half
# of the second cache of a core.
_MOST_BYTES = 2**19


def refuse_layers(x: Tensor, *layers: tuple[Tensor, Tensor | None]) -> Reason:
    """Why the kernels cannot take tokens and a row of layers, or None."""
    reason = refuse_tensors(x, *(y for layer in layers for y in layer))
    if reason is not None:
        return reason
    if is_autocast_on_cpu():
        return 'autocast casts the definition only'
    channels = [x.shape[-1], *(len(weight) for weight, _ in layers)]
    if any(size < 1 or size % CHANNELS for size in channels):
        return (
            f'it takes channels in multiples of {CHANNELS}, got '
            f'{tuple(x.shape)}, then {channels[1:]}'
        )
    if x.shape[:-1].numel() < FEWEST_TOKENS:
        return (
            f'it takes at least {FEWEST_TOKENS} tokens, got {tuple(x.shape)}'
        )
    for C, E, (weight, bias) in zip(channels, channels[1:], layers):
        shapes = [tuple(y.shape) for y in (weight, bias) if y is not None]
        if shapes not in ([(E, C)], [(E, C), (E,)]):
            return f'it takes weights (E, C) with C = {C}, got {shapes}'
    return why_no_kernels()


def fused_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    with_gelu: bool = False,
) -> Tensor:
    """Multiply ``(*, C)`` by ``(E, C)``, add ``(E, )``, activate if asked to.

    Without gradients.
    """
    x, weight, bias = _contiguous(x, weight, bias)
    (E, C), threads = weight.shape, torch.get_num_threads()
    out = x.new_empty(*x.shape[:-1], E)
    sizes = (x.numel() // C, C, E, _MOST_BYTES, with_gelu, threads)
    call('linear', x, weight, bias, out, *sizes)
    return out


def fused_perceptron(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    keep: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multiply, activate, multiply, without gradients.

    Args:
        x: ``(*, C)``.
        weight1: ``(D, C)``.
        bias1: ``(D, )``, or None for no bias.
        weight2: ``(E, D)``.
        bias2: ``(E, )``, or None for no bias.
        keep: Return the second result. Defaults to False.

    Returns:
        ``(*, E)``; and ``(*, D)``, what the GELU is applied to, or None.
    """
    inputs = _contiguous(x, weight1, bias1, weight2, bias2)
    (D, C), E, threads = weight1.shape, len(weight2), torch.get_num_threads()
    hidden = x.new_empty(*x.shape[:-1], D) if keep else None
    out = x.new_empty(*x.shape[:-1], E)
    sizes = (x.numel() // C, C, D, E, _MOST_BYTES, threads)
    call('perceptron', *inputs, hidden, out, *sizes)
    return out, hidden


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [x if x is None else x.contiguous() for x in tensors]
