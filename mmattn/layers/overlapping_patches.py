"""Stem and downsampling of CSWin Transformer: convolutions that overlap."""

import torch.nn as nn
from torch import Tensor

from .images import check_images

_STRIDE = 4


class OverlappingPatchEmbed(nn.Module):
    """Embed overlapping patches by a strided convolution and a norm.

    Source: CSWin, https://arxiv.org/abs/2107.00652, section 3.1. Patches of
    7x7 pixels at stride 4, with two pixels of zeros around the image. A side
    of n pixels gives ``(n + 1) // 4`` tokens, as published: one or two pixels
    over a multiple of four give no token of their own.

    Args:
        in_channels (int): Channels of the image.
        embed_dims (int): Channels of the tokens.
    """

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.proj = nn.Conv2d(in_channels, embed_dims, 7, _STRIDE, padding=2)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, H / 4, W / 4, C)``.

        Raises:
            ValueError: If the image has other channels or is smaller than
                the stride.
        """
        check_images(self, x, self.in_channels, _STRIDE)
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class OverlappingPatchMerging(nn.Module):
    """Halve a map by a 3x3 convolution at stride 2 and a norm.

    Source: CSWin, https://arxiv.org/abs/2107.00652, section 3.1. A map of odd
    sides gives the larger half.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 2, padding=1)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H / 2, W / 2, out_channels)``."""
        x = self.conv(x.permute(0, 3, 1, 2))
        return self.norm(x.permute(0, 2, 3, 1))
