"""Device functions shared by the kernels of several operations."""

import triton
import triton.language as tl

from . import IS_INTERPRETED

_IS_INTERPRETED = tl.constexpr(IS_INTERPRETED)
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
    ``levels``-th down, are the halves that contain the group.
    """
    start = group * 0
    size = start + num_tokens
    for level in range(levels):
        is_second = (group >> (levels - 1 - level)) & 1
        half = size - size // 2
        start += is_second * half
        size = tl.where(is_second == 1, size // 2, half)
    return start, size
