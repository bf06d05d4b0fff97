"""Window attention in Triton: a program has a window of one head.

Axes: B images, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, M window side, N = M * M tokens of a window.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _triton
from .._triton import ceil_div, on_device_of, tile_side, with_unit_stride
from ..custom_op import empty_like_values
from ..windows import needed_shift
from .api import ARGUMENTS

_MOST_TOKENS = 64  # of a window
_MOST_BYTES = 256  # of a token's channels, for four such windows to fit
# Most programs of a launch: enough for any GPU, few enough that the bias (and
# in the backward pass its gradient), which each accesses, costs little.
_PROGRAMS, _PROGRAMS_BACKWARD = 4096, 1024
_QUERIES = 16  # at a time, in the backward pass of float32


def why_not(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    scale: float,
) -> str | None:
    channels = qkv.shape[-1] // (3 * num_heads)
    if window_size**2 > _MOST_TOKENS:
        return f'it takes windows of at most {_MOST_TOKENS} tokens'
    if channels * qkv.element_size() > _MOST_BYTES:
        return f'it takes at most {_MOST_BYTES} bytes of channels of a head'
    return _triton.why_not(qkv)


class _Plan(NamedTuple):
    """A launch, as the kernels take it.

    Attributes:
        grid: All programs.
        programs: Of each head.
        bias: Contiguous; without one, any tensor, which is not read.
        sizes: Of the map, of the windows and of the launch.
        tiles: How the kernel is compiled.
    """

    grid: tuple[int]
    programs: int
    bias: Tensor
    sizes: tuple[int | float, ...]
    tiles: dict[str, int]


def plan(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    scale: float,
    *,
    most_programs: int,
) -> _Plan:
    B, H, W, channels = qkv.shape
    d, M = channels // (3 * num_heads), window_size
    windows = H // M * (W // M)
    share = max(ceil_div(B * windows * num_heads, most_programs), 1)
    programs = ceil_div(B * windows, share)
    shift = needed_shift((H, W), M, shift)
    return _Plan(
        grid=(programs * num_heads,),
        programs=programs,
        bias=qkv if bias is None else bias.contiguous(),
        sizes=(H, W, W // M, windows, num_heads, shift, B, share, scale),
        tiles={
            'CHANNELS': d,
            'SIDE': M,
            'HAS_BIAS': bias is not None,
            'BLOCK': tile_side(M**2, _MOST_TOKENS),
            'BLOCK_D': tile_side(d, 128),
            # Matrix instructions take 64 rows for four warps: eight would
            # compute every score twice.
            'num_warps': 4,
            # Prefetch the next window; in float32 one fills the registers.
            'num_stages': 2 if qkv.element_size() < 4 else 1,
        },
    )


def forward(qkv: Tensor, *args) -> list[Tensor]:
    from .kernels import attend_windows

    qkv = with_unit_stride(qkv)
    (out,) = empty_like_values(qkv)
    launch = plan(qkv, *args, most_programs=_PROGRAMS)
    if out.numel():
        with on_device_of(qkv):
            attend_windows[launch.grid](
                *(qkv, launch.bias, out),
                *qkv.stride()[:3],
                *launch.sizes,
                **launch.tiles,
            )
    return [out]


def backward(
    grad: Tensor,
    kept: Sequence[Tensor],
    wanted: Sequence[bool],
    qkv: Tensor,
    *args,
) -> list[Tensor]:
    from .kernels import attend_windows_backward

    qkv, bias = with_unit_stride(qkv), args[3]
    launch = plan(qkv, *args, most_programs=_PROGRAMS_BACKWARD)
    tiles = {**launch.tiles, 'BLOCK_M': launch.tiles['BLOCK']}
    if qkv.element_size() == 4:  # a window's gradients fill all registers
        tiles['BLOCK_M'] = _QUERIES
    dqkv = qkv.new_empty(qkv.shape)
    shape = (0,) if bias is None else bias.shape
    sums = qkv.new_zeros((launch.programs, *shape), dtype=torch.float32)
    if grad.numel():
        with on_device_of(qkv):
            attend_windows_backward[launch.grid](
                *(qkv, launch.bias, grad, dqkv, sums),
                *qkv.stride()[:3],
                *grad.stride()[:3],
                *launch.sizes,
                **tiles,
            )
    return [dqkv, None if bias is None else sums.sum(0).to(bias.dtype)]


_triton.register_kernel(
    'window_attention',
    ARGUMENTS,
    forward,
    backward,
    why_not,
    requires=f'{_triton.REQUIRES}; windows of at most {_MOST_TOKENS} tokens',
)
