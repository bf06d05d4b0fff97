"""Custom operators of the convolutions with another side for each head.

Axes: B images, H W rows and columns of the map, h heads, c channels of a head,
s_i side of head i, T taps of all heads, sum of s_i squared.
"""

import torch
import triton
from torch import Tensor

from ..size_cache import cached_per_size
from .device_functions import on_device_of, with_unit_stride
from .mixed_convolution_kernels import convolve, convolve_weights

_COLUMNS, _CHANNELS = 32, 32  # most of a tile
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
    _convolve(x, taps, bias, sides, out, (c, 1), (1, h))
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
    grad, x = with_unit_stride(grad), with_unit_stride(x)
    dx, dtaps, dbias = _empty_gradients(grad, x, taps, bias)
    _convolve(grad, taps, None, sides, dx, (1, h), (c, 1))
    rows = x.shape[0] * x.shape[1]
    share = triton.cdiv(rows, _MOST_PROGRAMS)
    programs = triton.cdiv(rows, share) if x.numel() else 0
    tap_sums = taps.new_empty((programs, *taps.shape), dtype=torch.float32)
    bias_sums = taps.new_empty((programs, h, c), dtype=torch.float32)
    if programs:
        tap_rows = _tap_rows(tuple(sides), x.device)
        tile = _tile(x, c)
        grid = programs, tap_rows.shape[1], triton.cdiv(c, tile['BLOCK_C'])
        with on_device_of(x):
            convolve_weights[grid](
                *(x, grad, tap_rows, tap_sums, bias_sums),
                *x.stride()[:3],
                *grad.stride()[:3],
                *x.shape[1:3],
                *(rows, share, h, c, tap_rows.shape[1], len(taps)),
                **tile,
                BLOCK_S=triton.next_power_of_2(max(sides)),
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


def _convolve(
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    sides: list[int],
    out: Tensor,
    strides: tuple[int, int],
    out_strides: tuple[int, int],
) -> None:
    """Convolve into ``out``; strides are those of heads and channels.

    Without a bias, with the kernels turned around.
    """
    B, H, W, channels = x.shape
    h = len(sides)
    c = channels // h
    tile = _tile(x, c)
    across = triton.cdiv(W, tile['BLOCK_W'])
    if not x.numel():
        return
    with on_device_of(x):
        convolve[B * H * across, h, triton.cdiv(c, tile['BLOCK_C'])](
            *(x, taps.contiguous()),
            taps if bias is None else bias.contiguous(),
            *(sides_table(tuple(sides), x.device), out),
            *x.stride()[:3],
            *strides,
            *out_strides,
            *(H, W, h, c),
            HAS_BIAS=bias is not None,
            IS_FLIPPED=bias is None,
            **tile,
        )


def _tile(x: Tensor, channels: int) -> dict[str, int]:
    return {
        'BLOCK_W': min(triton.next_power_of_2(x.shape[2]), _COLUMNS),
        'BLOCK_C': min(triton.next_power_of_2(channels), _CHANNELS),
    }


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
