"""Mixed convolution in Triton: one launch for all heads.

Axes: B images, H W rows and columns of the map, h heads, c channels of a head,
s_i side of head i, T taps of all heads, sum of s_i squared.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _triton
from .._triton import ceil_div, on_device_of, power_of_2, with_unit_stride
from ..dispatch import find_implementation
from ..size_cache import cached_per_size
from ..tracing import is_autocast_enabled

_CHANNELS = 32  # most of a tile
_COLUMNS = 16  # for the gradient of the taps
# Numbers of a program: sixteen bytes in half precision for each thread and
# head, for four heads at once or in turn.
_VALUES = 4096
# Most programs that share the rows of all maps; their sums are added later.
_MOST_PROGRAMS = 64


def why_not(x: Tensor, *args) -> str | None:
    return _triton.why_not(x)


# The taps of all heads are (T, c), each in raster order, the biases (h, c).
_ARGUMENTS = 'Tensor x, Tensor taps, Tensor bias, int[] sides'


def stack(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    if is_autocast_enabled(x.device.type):  # as PyTorch's convolution
        x = x.to(torch.get_autocast_dtype(x.device.type))
    taps = torch.cat([w.flatten(1).mT for w in weights])
    sides = [w.shape[-1] for w in weights]
    return x, taps, torch.stack(list(biases)), sides


def reference(
    x: Tensor, taps: Tensor, bias: Tensor, sides: Sequence[int]
) -> Tensor:
    parts = taps.split([side**2 for side in sides])
    weights = [w.mT.unflatten(1, (1, s, s)) for w, s in zip(parts, sides)]
    function = find_implementation('mixed_convolution', 'reference').function
    return function(x, weights, bias.unbind())


def forward(
    x: Tensor, taps: Tensor, bias: Tensor, sides: Sequence[int]
) -> list[Tensor]:
    from .kernels import convolve

    h, c = bias.shape
    (out,), x = empty(x), with_unit_stride(x)
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
    return [out]


def backward(
    grad: Tensor,
    kept: Sequence[Tensor],
    wanted: Sequence[bool],
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    sides: Sequence[int],
) -> list[Tensor]:
    from .kernels import convolve_backward, convolve_weights

    h, c = bias.shape
    # Arranged by head, like the map: strided reads for each tap would cost
    # more than this copy.
    grad = grad.unflatten(-1, (c, h)).transpose(-1, -2).contiguous()
    (dx,), x = empty(x), with_unit_stride(x)
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
    dtaps, dbias = tap_sums.sum(0), bias_sums.sum(0)
    return [dx, dtaps.to(taps.dtype), dbias.to(bias.dtype)]


def empty(x: Tensor, *args) -> list[Tensor]:
    """Uninitialized results of :func:`forward`."""
    return [x.new_empty(x.shape)]


def tile_of(places: int, channels: int, wide: int) -> dict[str, int]:
    """Positions and channels of a program, ``wide`` numbers of each."""
    BLOCK_C = min(power_of_2(channels), _CHANNELS)
    most = max(_VALUES // (BLOCK_C * wide), 1)
    return {'BLOCK_P': min(power_of_2(places), most), 'BLOCK_C': BLOCK_C}


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


_triton.register_kernel(
    'mixed_convolution',
    _ARGUMENTS,
    forward,
    backward,
    why_not,
    empty=empty,
    reference=reference,
    prepare=stack,
)
