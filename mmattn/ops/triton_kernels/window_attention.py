"""Custom operators of the attention inside windows.

Axes: B images, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, M window side, N = M * M tokens of a window.
"""

import torch
from torch import Tensor

from ..windows import needed_shift, padded_size
from .device_functions import (
    ceil_div,
    on_device_of,
    tile_side,
    with_unit_stride,
)
from .window_attention_kernels import attend_windows, attend_windows_backward

# Most programs of a launch: enough for any GPU, and for the bias, which each
# reads once, to be little beside the map. In the backward pass it also writes
# the sums of the bias's gradient.
_PROGRAMS, _PROGRAMS_BACKWARD = 4096, 1024
_QUERIES = 16  # at a time, in the backward pass of float32

_OPTIONS = (
    'Tensor qkv, Tensor? bias, Tensor? padding, SymInt num_heads, '
    'SymInt window_size, SymInt shift, float scale'
)


@torch.library.custom_op(
    'mmattn::window_attention',
    mutates_args=(),
    schema=f'({_OPTIONS}) -> Tensor',
)
def window_attention(
    qkv: Tensor,
    bias: Tensor | None,
    padding: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float,
) -> Tensor:
    """Compute what ``mmattn.ops.window_attention`` defines.

    Args:
        qkv: ``(B, H, W, 3 * C)``.
        bias: ``(h, N, N)``, or None.
        padding: ``(3 * C, )``, or None for zeros.
        num_heads: Number of heads h.
        window_size: Window side M, in tokens. A program holds the whole
            window, of 64 tokens at most.
        shift: Rows and columns to roll, where the map needs it.
        scale: Factor of the products.

    Returns:
        ``(B, H, W, C)``.
    """
    qkv = with_unit_stride(qkv)
    out = _empty_result(qkv)
    bias, padding, sizes, tiles = _plan(
        qkv, bias, padding, num_heads, window_size, shift
    )
    programs, share = _shares(len(qkv) * sizes[3], num_heads, _PROGRAMS)
    if out.numel():
        with on_device_of(qkv):
            attend_windows[programs * num_heads,](
                *(qkv, bias, padding, out),
                *qkv.stride()[:3],
                *sizes,
                len(qkv),
                share,
                scale,
                **tiles,
                **_options(qkv),
            )
    return out


@window_attention.register_fake
def _empty_result(qkv, *options):
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)


@torch.library.custom_op(
    'mmattn::window_attention_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_OPTIONS}) -> (Tensor, Tensor, Tensor)',
)
def window_attention_backward(
    grad: Tensor,
    qkv: Tensor,
    bias: Tensor | None,
    padding: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``qkv``, of the bias and of the padding.

    Each in its dtype, empty for what is None.
    """
    grad, qkv = with_unit_stride(grad), with_unit_stride(qkv)
    dqkv, dbias, dpadding = _empty_gradients(grad, qkv, bias, padding)
    held_bias, held_padding, sizes, tiles = _plan(
        qkv, bias, padding, num_heads, window_size, shift
    )
    windows = len(qkv) * sizes[3]
    programs, share = _shares(windows, num_heads, _PROGRAMS_BACKWARD)
    tiles['BLOCK_M'] = tiles['BLOCK']
    if qkv.element_size() == 4:  # a window's slopes would fill all registers
        tiles['BLOCK_M'] = _QUERIES
    bias_sums = qkv.new_zeros((programs, *dbias.shape), dtype=torch.float32)
    padding_sums = qkv.new_empty(
        (programs, len(dpadding) // 3 * 2), dtype=torch.float32
    )
    if grad.numel():
        with on_device_of(qkv):
            attend_windows_backward[programs * num_heads,](
                *(qkv, held_bias, held_padding, grad),
                *(dqkv, bias_sums, padding_sums),
                *qkv.stride()[:3],
                *grad.stride()[:3],
                *sizes,
                len(qkv),
                share,
                scale,
                **tiles,
                **_options(qkv),
            )
    dbias.copy_(bias_sums.sum(0))
    dpadding.zero_()
    if tiles['HAS_PADDING']:
        # Whatever a query of the padding finds is cut off again.
        dpadding[len(dpadding) // 3 :] = padding_sums.sum(0)
    return dqkv, dbias, dpadding


@window_attention_backward.register_fake
def _empty_gradients(grad, qkv, bias, padding, *options):
    return tuple(
        qkv.new_empty(0)
        if x is None
        else torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in (qkv, bias, padding)
    )


def _save(ctx, inputs, output) -> None:
    qkv, bias, padding, *ctx.options = inputs
    ctx.save_for_backward(qkv, bias, padding)


def _differentiate(ctx, grad: Tensor) -> tuple:
    inputs = ctx.saved_tensors
    grads = window_attention_backward(grad, *inputs, *ctx.options)
    grads = [None if x is None else dx for x, dx in zip(inputs, grads)]
    return *grads, None, None, None, None


window_attention.register_autograd(_differentiate, setup_context=_save)


def _shares(windows: int, num_heads: int, most: int) -> tuple[int, int]:
    """Programs of each head, and windows of each of them."""
    share = max(ceil_div(windows * num_heads, most), 1)
    return ceil_div(windows, share), share


def _options(qkv: Tensor) -> dict[str, int]:
    """How a kernel is compiled: read the next window beside the present one.

    Eight warps would compute every score twice: the matrix instructions take
    64 rows for four. In float32 a window alone fills their registers.
    """
    return {'num_warps': 4, 'num_stages': 2 if qkv.element_size() < 4 else 1}


def _plan(
    qkv: Tensor,
    bias: Tensor | None,
    padding: Tensor | None,
    num_heads: int,
    window_size: int,
    shift: int,
) -> tuple:
    """Bias, padding, sizes and tiles of a launch, as the kernels take them.

    What is not there is any tensor, which the kernels do not read.
    """
    H, W, channels = qkv.shape[1:]
    size = padded_size((H, W), (window_size, window_size))
    down, across = (side // window_size for side in size)
    shift = needed_shift((H, W), window_size, shift)
    d = channels // (3 * num_heads)
    is_padded = padding is not None and size != (H, W)
    tiles = {
        'CHANNELS': d,
        'SIDE': window_size,
        'HAS_BIAS': bias is not None,
        'HAS_PADDING': is_padded,
        'BLOCK': tile_side(window_size**2, 64),
        'BLOCK_D': tile_side(d, 128),
    }
    return (
        qkv if bias is None else bias.contiguous(),
        padding.to(qkv.dtype).contiguous() if is_padded else qkv,
        (H, W, across, down * across, num_heads, shift),
        tiles,
    )
