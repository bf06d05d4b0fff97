"""Rectangular windows of a map: split, merge, shift.

Axes: B batch, H W rows and columns of the map, C channels, n windows of a map
in raster order, N tokens of a window in raster order. Sizes are
``(height, width)`` in tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .size_cache import cached_per_size
from .tracing import has_dynamic_shape

Size = tuple[int, int]


def padded_size(size: Size, window: Size) -> Size:
    """Round both sides of ``size`` up to multiples of ``window``."""
    # Written so that compilers derive the simplest expressions.
    height, width = [
        (side + step - 1) // step * step for side, step in zip(size, window)
    ]
    return height, width


def needed_shift(size: Size, window_size: int, shift: int) -> int:
    """``shift``, or 0 if the map is one window high or wide."""
    return shift if min(size) > window_size else 0


def pad_map(x: Tensor, size: Size) -> Tensor:
    """Zero-pad ``(B, H, W, C)`` at the bottom and right to ``(B, *size, C)``.

    Returns ``x`` itself if it has that size.
    """
    B, H, W, C = x.shape
    # With dynamic shapes, comparing them would add guards.
    if not has_dynamic_shape(x) and (H, W) == tuple(size):
        return x
    return F.pad(x, (0, 0, 0, size[1] - W, 0, size[0] - H))


def split_windows(x: Tensor, window: Size) -> Tensor:
    """Cut a map into disjoint windows; :func:`merge_windows` undoes it.

    Args:
        x: ``(B, H, W, C)``, H and W multiples of the window's sides.
        window: Height and width of a window.

    Returns:
        ``(B, n, N, C)``.

    Raises:
        ValueError: If the window does not divide the map.
    """
    B, H, W, C = x.shape
    h, w = window
    if H % h or W % w:
        raise ValueError(
            'split_windows expects a map that the window '
            f'divides, got map {H}x{W} and window {h}x{w}; pad '
            'the map to padded_size first'
        )
    x = x.reshape(B, H // h, h, W // w, w, C)
    x = x.transpose(2, 3)  # (B, H/h, W/w, h, w, C)
    return x.reshape(B, H // h * (W // w), h * w, C)


def merge_windows(windows: Tensor, window: Size, size: Size) -> Tensor:
    """Put the windows of :func:`split_windows` back in their places.

    Args:
        windows: ``(B, n, N, C)``.
        window: Height and width of a window.
        size: Height and width of the map.

    Returns:
        ``(B, H, W, C)``.
    """
    H, W = size
    h, w = window
    B, _, _, C = windows.shape
    x = windows.reshape(B, H // h, W // w, h, w, C)
    x = x.transpose(2, 3)  # (B, H/h, h, W/w, w, C)
    return x.reshape(B, H, W, C)


@cached_per_size
def shifted_window_bias(
    size: Size,
    window: Size,
    shift: Size,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Attention mask for windows of a rolled map.

    Rolling by ``-shift`` moves the first rows and columns to the end. In a
    window with tokens of both ends, each attends to its own end only.

    Source: https://arxiv.org/abs/2103.14030, section 3.2, figure 4.

    Args:
        size: Height and width of the map, multiples of the window's.
        window: Height and width of a window.
        shift: Rows and columns rolled, from 0 to below the window's.
        device: Device of the bias.
        dtype: Of the bias. Defaults to float32.

    Returns:
        ``(n, N, N)``, query by key: 0, or minus infinity between the ends.
    """
    sides = []
    for length, step in zip(size, shift):
        # 1 for what was rolled around the edge, 0 for the rest.
        wrapped = torch.arange(length, device=device) >= length - step
        sides.append(wrapped.long())
    regions = 2 * sides[0][:, None] + sides[1]  # (H, W)
    regions = split_windows(regions[None, ..., None], window)[0, ..., 0]
    apart = regions[:, :, None] != regions[:, None]  # (n, N, N)
    bias = torch.zeros(apart.shape, device=device, dtype=dtype)
    return bias.masked_fill_(apart, -torch.inf)
