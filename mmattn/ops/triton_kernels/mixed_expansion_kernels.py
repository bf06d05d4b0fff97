"""Convolutions of several sides, the groups' matrices and the GELU in one.

A program convolves a piece of a row of the map with the kernels of one head
after the other, and adds at once what the head gives to each widened channel:
what lies between the convolutions and the GELU never leaves the registers.

Axes: B images, H W rows and columns of the map, h heads, c channels of a head,
which are groups of h channels afterwards, e channels of a widened group, T
taps of all heads.
"""

import triton
import triton.language as tl

from .mixed_convolution_kernels import add_taps

_SQRT_HALF = tl.constexpr(0.7071067811865476)


# Another map must not compile the kernel again.
@triton.jit(do_not_specialize=('height', 'width'))
def convolve_expand(
    x,  # (B, H, W, h * c)
    taps,  # (T, c)
    bias,  # (h, c)
    sides,  # (2, h), side and first tap of each head
    matrices,  # (c * e, h)
    matrix_bias,  # (c * e)
    out,  # (B, H, W, c * e)
    x_b,
    x_h,
    x_w,
    height,
    width,
    heads,
    groups,
    wide,  # e
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """A piece of one row of the map, some groups."""
    across = tl.cdiv(width, BLOCK_W)
    pid = tl.program_id(0)
    row = pid // across % height
    image = (pid // across // height).to(tl.int64)
    column = pid % across * BLOCK_W + tl.arange(0, BLOCK_W)
    group = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_group = group < groups
    within = tl.arange(0, BLOCK_E)
    channel = group[:, None] * wide + within[None]  # (c, e)
    is_channel = is_group[:, None] & (within < wide)[None]
    start = tl.load(matrix_bias + channel, is_channel, 0.0).to(tl.float32)
    total = tl.zeros((BLOCK_W, BLOCK_C, BLOCK_E), tl.float32) + start[None]
    x += image * x_b
    for head in range(heads):
        scale = tl.load(bias + head * groups + group, is_group, 0.0)
        seen = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
        seen += scale.to(tl.float32)[None]
        seen = add_taps(
            seen,
            x + head * groups,
            taps,
            tl.load(sides + head),
            tl.load(sides + heads + head),
            row,
            column,
            group,
            is_group,
            x_h,
            x_w,
            1,
            height,
            width,
            groups,
            False,
        )
        weight = tl.load(matrices + channel * heads + head, is_channel, 0.0)
        total += seen[:, :, None] * weight.to(tl.float32)[None]
    total = 0.5 * total * (1 + tl.math.erf(total * _SQRT_HALF))
    out += ((image * height + row) * width) * groups * wide
    place = (column * groups * wide)[:, None, None] + channel[None]
    mask = (column < width)[:, None, None] & is_channel[None]
    tl.store(out + place, total.to(out.dtype.element_ty), mask)
