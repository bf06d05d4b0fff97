"""Custom operator of the convolutions, the groups' matrices and the GELU.

Axes: B images, H W rows and columns of the map, h heads, c channels of a head,
which are groups of h channels afterwards, e channels of a widened group, T
taps of all heads.
"""

import torch
from torch import Tensor

from .device_functions import (
    on_device_of,
    power_of_2,
    with_unit_stride,
)
from .mixed_convolution import launch_grid, sides_table, tile_of
from .mixed_expansion_kernels import convolve_expand


@torch.library.custom_op(
    'mmattn::mixed_expansion',
    mutates_args=(),
    schema='(Tensor x, Tensor taps, Tensor bias, SymInt[] sides, '
    'Tensor matrices, Tensor matrix_bias) -> Tensor',
)
def mixed_expansion(
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    sides: list[int],
    matrices: Tensor,
    matrix_bias: Tensor,
) -> Tensor:
    """Compute what ``mmattn.ops.mixed_expansion`` defines, without gradients.

    Args:
        x: ``(B, H, W, h * c)``.
        taps: Kernels of all heads, one after the other, ``(T, c)``, each in
            raster order.
        bias: ``(h, c)``.
        sides: Side of each head.
        matrices: ``(c * e, h)``.
        matrix_bias: ``(c * e, )``.

    Returns:
        ``(B, H, W, c * e)``.
    """
    h, c = bias.shape
    e = len(matrices) // c
    x, out = with_unit_stride(x), _empty_result(x, taps, bias, sides, matrices)
    B, H, W, _ = x.shape
    BLOCK_E = power_of_2(e)
    tile = tile_of(H * W, c, BLOCK_E)
    if out.numel():
        with on_device_of(x):
            convolve_expand[launch_grid(B, H * W, c, tile)](
                *(x, taps.contiguous(), bias.contiguous()),
                sides_table(tuple(sides), x.device),
                *(matrices.contiguous(), matrix_bias.contiguous(), out),
                *x.stride()[:3],
                *(H, W, h, c),
                WIDE=e,
                BLOCK_E=BLOCK_E,
                **tile,
            )
    return out


@mixed_expansion.register_fake
def _empty_result(x, taps, bias, sides, matrices, *options):
    return x.new_empty(*x.shape[:-1], len(matrices))
