"""Sines and cosines that encode the place of a token on a map.

Axes: H W rows and columns, C channels.
"""

import math

import torch
from torch import Tensor

from .size_cache import cached_per_size
from .windows import Size

# The slowest wave is this many times longer than the fastest.
_TEMPERATURE = 10000.0


@cached_per_size
def sine_position(
    size: Size, num_channels: int, device: torch.device
) -> Tensor:
    """Encode the places of a map by waves of several lengths.

    Source: https://arxiv.org/abs/2005.12872, appendix A.4. The first half of
    the channels encodes the row, the second the column; of each half, the
    first half is sines, the second cosines. Places are measured as fractions
    of the map, from the middle of a token, so that maps of one image at
    different strides agree.

    Args:
        size: Height and width, in tokens.
        num_channels: Channels C, a multiple of 4.
        device: Device of the encoding.

    Returns:
        ``(H, W, C)`` float32, in ``[-1, 1]``.

    Raises:
        ValueError: If 4 does not divide ``num_channels``.
    """
    if num_channels % 4 != 0:
        raise ValueError(
            'sine_position expects num_channels to be a multiple of 4, got '
            f'{num_channels}'
        )
    H, W = size
    num_waves = num_channels // 4
    steps = torch.arange(num_waves, device=device) / num_waves
    waves = 2 * math.pi * _TEMPERATURE**-steps
    sides = []
    for length in size:
        place = (torch.arange(length, device=device) + 0.5) / length
        angles = place[:, None] * waves  # (side, C / 4)
        sides.append(torch.cat((angles.sin(), angles.cos()), dim=1))
    rows, columns = sides
    rows = rows[:, None].expand(H, W, -1)
    return torch.cat((rows, columns[None].expand(H, W, -1)), dim=-1)
