"""Learned biases by relative position inside a square window.

Axes: M window side, N = M * M tokens of a window, h heads. Offsets are
(rows, columns), query place minus key place, each from ``1 - M`` to ``M - 1``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .size_cache import cached_per_size


@cached_per_size
def relative_position_index(window_size: int, device: torch.device) -> Tensor:
    """Row of the bias table for each pair of tokens of a window.

    Source: https://arxiv.org/abs/2103.14030, section 3.2. The row of the
    offset ``(dy, dx)`` is ``(dy + M - 1) * (2M - 1) + dx + M - 1``.

    Args:
        window_size: Window side M, in tokens.
        device: Device of the index.

    Returns:
        ``(N, N)`` int64, query by key, in ``[0, (2M - 1)^2)``.
    """
    M = window_size
    side = torch.arange(M, device=device)
    places = torch.cartesian_prod(side, side)  # (N, 2), rows then columns
    offsets = places[:, None] - places[None] + M - 1  # (N, N, 2), from 0
    return offsets[..., 0] * (2 * M - 1) + offsets[..., 1]


def relative_position_bias(table: Tensor, window_size: int) -> Tensor:
    """Look up the bias of each head for each pair of tokens of a window.

    Args:
        table: ``((2M - 1)^2, h)``.
        window_size: Window side M, in tokens.

    Returns:
        ``(h, N, N)``, query by key.

    Raises:
        ValueError: If ``table`` is not that of the window.
    """
    if table.ndim != 2 or table.shape[0] != (2 * window_size - 1) ** 2:
        raise ValueError(
            'relative_position_bias expects a table ((2M - 1)^2, heads) of '
            f'window M, got {tuple(table.shape)} and {window_size=}; '
            'resize_relative_position_bias_table gives one'
        )
    N = window_size**2
    index = relative_position_index(window_size, table.device).flatten()
    return table.t().index_select(1, index).view(-1, N, N)


def resize_relative_position_bias_table(
    table: Tensor, window_size: int
) -> Tensor:
    """Interpolate a bias table to another window side.

    Bicubic over the square of offsets, with its corners kept in place.

    Args:
        table: ``((2M - 1)^2, h)``.
        window_size: New window side W, in tokens.

    Returns:
        ``((2W - 1)^2, h)`` in the dtype of ``table``; interpolated in float32
        or wider.

    Raises:
        ValueError: If the rows of ``table`` are not the square of an odd
            number.
    """
    old = math.isqrt(table.shape[0]) if table.ndim == 2 else 0
    if old % 2 == 0 or old * old != table.shape[0]:
        raise ValueError(
            'resize_relative_position_bias_table expects a table of shape '
            f'((2M - 1)^2, heads), got {tuple(table.shape)}'
        )
    new = 2 * window_size - 1
    if new == old:
        return table
    square = table.to(torch.promote_types(table.dtype, torch.float32))
    square = square.T.reshape(1, -1, old, old)  # (1, h, 2M - 1, 2M - 1)
    square = F.interpolate(
        square, size=(new, new), mode='bicubic', align_corners=True
    )
    return square.reshape(-1, new * new).T.contiguous().to(table.dtype)
