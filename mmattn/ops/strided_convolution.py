"""Convolutions that make maps smaller: stems, what lies between stages.

Axes: B batch, H W rows and columns of the map, C input channels, E output
channels, s t sides of a kernel.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .compiling import compiles_for_sizes, narrowed
from .operators import define_operator


def strided_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """Convolve as PyTorch does, channels first.

    A compiler for more than one size takes it as one operator whose result
    lies channels last: with what PyTorch chooses by the size it would have to
    follow each choice, and index all that comes behind by products of sides.

    Args:
        x: ``(B, C, H, W)``.
        weight: Kernels, ``(E, C, s, t)``.
        bias: ``(E, )``, or None for no bias.
        stride: Rows and columns from one place to the next.
        padding: Rows and columns of zeros around the map.

    Returns:
        ``(B, E, H', W')`` with ``H' = (H + 2 * padding - s) // stride + 1``.
    """
    if not compiles_for_sizes(x):
        return F.conv2d(x, weight, bias, stride, padding)
    x, weight, bias = narrowed(x, weight, bias)
    x = x.permute(0, 2, 3, 1)
    out = _for_any_size(x, weight, bias, stride, padding)
    return out.permute(0, 3, 1, 2)


def _convolve_map(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    out = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding)
    return out.permute(0, 2, 3, 1)


def _empty_map(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    H, W = (
        (side + 2 * zeros - kernel) // step + 1
        for side, zeros, kernel, step in zip(
            x.shape[1:3], padding, weight.shape[2:], stride
        )
    )
    return x.new_empty(x.shape[0], H, W, weight.shape[0])


_for_any_size = define_operator(
    'strided_convolution_for_any_size',
    'Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding',
    _convolve_map,
    _empty_map,
)
