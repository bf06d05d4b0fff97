"""What kernels call on the GPU, and what their launches share."""

import contextlib
import os

import torch
import triton
import triton.language as tl
from torch import Tensor

_IS_INTERPRETED = tl.constexpr(os.environ.get('TRITON_INTERPRET') == '1')
# The GPU's exponential is that of base 2.
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def dot(a, b):
    """Matrix product in float32 of tiles of one dtype."""
    if _IS_INTERPRETED:  # its product reads bfloat16 as integers
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision='tf32x3')


@triton.jit
def load_rows(x, rows, valid, CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Gather ``(rows, BLOCK_D)``, zeros where there is none."""
    d = tl.arange(0, BLOCK_D)
    mask = valid[:, None] & (d < CHANNELS)[None]
    return tl.load(x + rows[:, None] + d[None], mask=mask, other=0.0)


@triton.jit
def store_rows(
    x, rows, valid, tile, CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Scatter ``(rows, BLOCK_D)``, in the dtype of the target."""
    d = tl.arange(0, BLOCK_D)
    mask = valid[:, None] & (d < CHANNELS)[None]
    tl.store(x + rows[:, None] + d[None], tile.to(x.dtype.element_ty), mask)


@triton.jit
def group_bounds(group, num_tokens, levels):
    """First place and size of a group, ``levels`` halvings deep.

    The first half takes the odd token. The bits of ``group``, from the
    ``levels``-th down, say which half the group lies in.
    """
    start = group * 0
    size = start + num_tokens
    for level in range(levels):
        is_second = (group >> (levels - 1 - level)) & 1
        half = size - size // 2
        start += is_second * half
        size = tl.where(is_second == 1, size // 2, half)
    return start, size


# Triton's own serve kernels too, and take microseconds outside of them.
def ceil_div(length: int, part: int) -> int:
    """How many parts cover a length."""
    return -(-length // part)


def power_of_2(length: int) -> int:
    """The next power of two that is no less."""
    return 1 << max(length - 1, 0).bit_length()


def tile_side(length: int, most: int) -> int:
    """Side of a tile that holds ``length``, or ``most`` of it: 16 at least."""
    return min(max(power_of_2(length), 16), most)


def with_unit_stride(x: Tensor) -> Tensor:
    """``x`` itself where its last axis lies side by side, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager:
    """Launch where ``x`` lies, whichever device is the current one."""
    if x.is_cuda:
        return torch.cuda.device(x.device)
    return contextlib.nullcontext()
