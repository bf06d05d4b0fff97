"""Custom operators of the convolutions with another side for each head.

Axes: B images, H W rows and columns of the map, h heads, c channels of a head,
s_i side of head i, T taps of all heads, sum of s_i squared.
"""

import torch
from torch import Tensor

from ..size_cache import cached_per_size
from .device_functions import (
    ceil_div,
    on_device_of,
    power_of_2,
    with_unit_stride,
)
from .mixed_convolution_kernels import (
    convolve,
    convolve_backward,
    convolve_weights,
)

_CHANNELS = 32  # most of a tile
_COLUMNS = 16  # for the gradient of the taps
# Numbers that a program holds: sixteen bytes of half precision of each head's
# values for each thread, four heads at once or one after the other.
_VALUES = 4096
# Programs that share the rows of all maps, whose sums are added afterwards.
_MOST_PROGRAMS = 64


@torch.library.custom_op(
    'mmattn::mixed_convolution',
    mutates_args=(),
    schema='(Tensor x, Tensor taps, Tensor bias, SymInt[] sides) -> Tensor',
)
def mixed_convolution(
    x: Tensor, taps: Tensor, bias: Tensor, sides: list[int]
) -> Tensor:
    """Compute what ``mmattn.ops.mixed_convolution`` defines.

    Args:
        x: ``(B, H, W, h * c)``.
        taps: Kernels of all heads, one after the other, ``(T, c)``, each in
            raster order.
        bias: ``(h, c)``.
        sides: Side of each head.

    Returns:
        ``(B, H, W, c * h)``, regrouped.
    """
    h, c = bias.shape
    x, out = with_unit_stride(x), _empty_result(x)
    B, H, W, _ = x.shape
    tile = tile_of(H * W, c, power_of_2(h))
    if x.numel():
        with on_device_of(x):
            convolve[launch_grid(B, H * W, c, tile)](
                *(x, taps.contiguous(), bias.contiguous()),
                *(sides_table(tuple(sides), x.device), out),
                *x.stride()[:3],
                *(H, W, c),
                HEADS=h,
                BLOCK_H=power_of_2(h),
                **tile,
            )
    return out


@mixed_convolution.register_fake
def _empty_result(x, *options):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    'mmattn::mixed_convolution_backward',
    mutates_args=(),
    schema='(Tensor grad, Tensor x, Tensor taps, Tensor bias, SymInt[] sides) '
    '-> (Tensor, Tensor, Tensor)',
)
def mixed_convolution_backward(
    grad: Tensor, x: Tensor, taps: Tensor, bias: Tensor, sides: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, of the taps and of the bias, in their dtypes."""
    h, c = bias.shape
    # Side by side for each head, as the map is: a strided read for each tap
    # would cost more than this pass.
    grad = grad.unflatten(-1, (c, h)).transpose(-1, -2).contiguous()
    x = with_unit_stride(x)
    dx, dtaps, dbias = _empty_gradients(x, x, taps, bias)
    B, H, W, _ = x.shape
    rows = B * H
    share = ceil_div(rows, _MOST_PROGRAMS)
    programs = ceil_div(rows, share) if x.numel() else 0
    tap_sums = taps.new_empty((programs, *taps.shape), dtype=torch.float32)
    bias_sums = taps.new_empty((programs, h, c), dtype=torch.float32)
    if programs:
        tile = tile_of(H * W, c, 1)
        tap_rows = _tap_rows(tuple(sides), x.device)
        with on_device_of(x):
            convolve_backward[(*launch_grid(B, H * W, c, tile), h)](
                *(grad, taps.contiguous()),
                *(sides_table(tuple(sides), x.device), dx),
                *(H, W, c),
                HEADS=h,
                **tile,
            )
            channels = min(tile['BLOCK_C'], 16)
            grid = programs, tap_rows.shape[1], ceil_div(c, channels)
            convolve_weights[grid](
                *(x, grad, tap_rows, tap_sums, bias_sums),
                *x.stride()[:3],
                *(H, W, rows, share, h, c, tap_rows.shape[1], len(taps)),
                BLOCK_W=min(power_of_2(W), _COLUMNS),
                BLOCK_C=channels,
                BLOCK_S=power_of_2(max(sides)),
            )
    dtaps.copy_(tap_sums.sum(0))
    dbias.copy_(bias_sums.sum(0))
    return dx, dtaps, dbias


@mixed_convolution_backward.register_fake
def _empty_gradients(grad, x, taps, bias, *options):
    return tuple(
        torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in (x, taps, bias)
    )


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.sides = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad: Tensor) -> tuple:
    tensors = ctx.saved_tensors
    return *mixed_convolution_backward(grad, *tensors, ctx.sides), None


mixed_convolution.register_autograd(_differentiate, setup_context=_save)


def tile_of(places: int, channels: int, wide: int) -> dict[str, int]:
    """Positions and channels of a program, ``wide`` numbers of each."""
    BLOCK_C = min(power_of_2(channels), _CHANNELS)
    most = max(_VALUES // (BLOCK_C * wide), 1)
    return {
        'BLOCK_P': min(power_of_2(places), most),
        'BLOCK_C': BLOCK_C,
    }


def launch_grid(
    images: int, places: int, channels: int, tile: dict[str, int]
) -> tuple[int, int]:
    """Programs for all positions of all images, and for all channels."""
    pieces = ceil_div(places, tile['BLOCK_P'])
    return images * pieces, ceil_div(channels, tile['BLOCK_C'])


@cached_per_size
def sides_table(sides: tuple[int, ...], device: torch.device) -> Tensor:
    """Side and first tap of each head, ``(2, h)`` int32."""
    firsts = [sum(s * s for s in sides[:i]) for i in range(len(sides))]
    return torch.tensor((sides, firsts), dtype=torch.int32, device=device)


@cached_per_size
def _tap_rows(sides: tuple[int, ...], device: torch.device) -> Tensor:
    """Of each row of taps: head, side, first tap, number in its head.

    ``(4, sum of s_i)`` int32.
    """
    rows, first = [], 0
    for head, side in enumerate(sides):
        for number in range(side):
            rows.append((head, side, first, number))
            first += side
    return torch.tensor(rows, dtype=torch.int32, device=device).T.contiguous()
