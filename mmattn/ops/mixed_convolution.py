"""Depthwise convolution with another kernel size for each head.

Axes: B batch, H W rows and columns of the map, C = h * c channels, h heads,
c channels of a head, s_i side of the kernels of head i.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiling import compiles_for_sizes, narrowed
from .cpu_kernels import register_kernel
from .cpu_kernels.convolution import convolve_heads, refuse_convolution
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .operators import define_operator


def mixed_convolution(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    impl: str = 'auto',
) -> Tensor:
    """Convolve each head at its own scale, then bring the scales together.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3.1, multi-head
    mixed convolution and the regrouping of the scale-aware aggregation. The
    channels are cut into ``h`` heads. Head i passes a depthwise convolution
    of its own kernels, with zeros around the map. The result is regrouped:
    channel j of head i becomes channel ``j * h + i``, so that the j-th group
    of ``h`` channels holds every scale once.

    Args:
        x: ``(B, H, W, C)``.
        weights: Kernels of each head, ``(c, 1, s_i, s_i)`` with odd ``s_i``.
        biases: Bias of each head, ``(c, )``.
        impl: ``'reference'``, ``'cpp'`` (one kernel for all heads), another
            registered name, or ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(B, H, W, C)``, regrouped.

    Raises:
        ValueError: If the kernels do not fit the channels or have even sides.
    """
    check_kernels(x, weights, biases)
    args = (x, weights, biases)
    row = choose_implementation('mixed_convolution', impl, *args)
    if compiles_for_sizes(x) and not row.any_size:
        sides = [weight.shape[-1] for weight in weights]
        kernels = torch.cat([t.flatten() for t in (*weights, *biases)])
        return _for_any_size(*narrowed(x, kernels), sides, impl)
    return row.function(*args)


def _with_flat_kernels(
    x: Tensor, kernels: Tensor, sides: Sequence[int], impl: str
) -> Tensor:
    """With all kernels, then all biases, in one tensor, as operators want."""
    c = x.shape[-1] // len(sides)
    sizes = [c * side**2 for side in sides] + [c] * len(sides)
    parts = kernels.split(sizes)
    weights = [part.view(c, 1, side, side) for part, side in zip(parts, sides)]
    return mixed_convolution(x, weights, parts[len(sides) :], impl)


def _empty(x: Tensor, *args) -> Tensor:
    return x.new_empty(x.shape)


_for_any_size = define_operator(
    'mixed_convolution_for_any_size',
    'Tensor x, Tensor kernels, int[] sides, str impl',
    _with_flat_kernels,
    _empty,
)


def check_kernels(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> None:
    """Raise ValueError for kernels that do not fit the channels."""
    c = x.shape[-1] // max(len(weights), 1)
    fits = x.ndim == 4 and c * len(weights) == x.shape[-1]
    fits = fits and [tuple(b.shape) for b in biases] == [(c,)] * len(weights)
    for w in weights:
        side = w.shape[-1]
        fits = fits and tuple(w.shape) == (c, 1, side, side) and side % 2
    if not fits:
        raise ValueError(
            'mixed_convolution expects x (B, H, W, heads * c) and for each '
            'head kernels (c, 1, s, s) of odd s and a bias (c,), got '
            f'{tuple(x.shape)}, {[tuple(w.shape) for w in weights]} and '
            f'{[tuple(b.shape) for b in biases]}'
        )


@register_implementation('mixed_convolution', 'reference')
def _reference(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    heads = x.permute(0, 3, 1, 2).chunk(len(weights), dim=1)
    # torch.jit.trace has tensors for sizes.
    sides = [int(w.shape[-1]) for w in weights]
    outs = [
        F.conv2d(head, w, bias, padding=side // 2, groups=len(w))
        for head, w, bias, side in zip(heads, weights, biases, sides)
    ]
    outs = [out.permute(0, 2, 3, 1) for out in outs]  # (B, H, W, c)
    return torch.stack(outs, dim=-1).flatten(-2)


def _refuse(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Reason:
    return refuse_convolution(x, *weights, *biases)


@register_kernel('mixed_convolution', priority=30, refuses=_refuse)
def _cpp(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    h = len(weights)

    def define(x: Tensor, *parameters: Tensor) -> Tensor:
        return _reference(x, parameters[:h], parameters[h:])

    return convolve_heads(x, weights, biases, define)
