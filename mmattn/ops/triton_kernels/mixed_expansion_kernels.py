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

from .mixed_convolution_kernels import add_taps, positions, put

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
    WIDE: tl.constexpr,  # e
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Some positions of one image, some groups."""
    image, row, column, is_place = positions(height, width, BLOCK_P)
    group = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_group = group < groups
    within = tl.arange(0, BLOCK_E)
    channel = group[:, None] * WIDE + within[None]  # (c, e)
    is_channel = is_group[:, None] & (within < WIDE)[None]
    start = tl.load(matrix_bias + channel, is_channel, 0.0).to(tl.float32)
    total = tl.zeros((BLOCK_P, BLOCK_C, BLOCK_E), tl.float32) + start[None]
    x += image * x_b
    for head in range(heads):
        scale = tl.load(bias + head * groups + group, is_group, 0.0)
        seen = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
        seen += scale.to(tl.float32)[None]
        seen = add_taps(
            seen, x + head * groups, taps,
            tl.load(sides + head), tl.load(sides + heads + head),
            row, column, group, is_group, x_h, x_w,
            height, width, groups, False,
        )  # fmt: skip
        weight = tl.load(matrices + channel * heads + head, is_channel, 0.0)
        total += seen[:, :, None] * weight.to(tl.float32)[None]
    total = 0.5 * total * (1 + tl.math.erf(total * _SQRT_HALF))
    put(out, total, image, row, column, is_place, channel, is_channel,
        height, width, groups * WIDE)  # fmt: skip
