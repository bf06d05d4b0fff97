"""Downsampling of Swin Transformer."""

import torch.nn as nn
from torch import Tensor

from mmattn.ops import pad_map, padded_size


class PatchMerging(nn.Module):
    """Join each 2x2 neighbourhood of tokens into one.

    Source: https://arxiv.org/abs/2103.14030, section 3.1. A map of odd sides
    is padded with zeros at the bottom and at the right.

    Args:
        in_channels (int): Channels C of the input.
        out_channels (int): Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H / 2, W / 2, out_channels)``."""
        B, H, W, C = x.shape
        size = padded_size((H, W), (2, 2))
        x = pad_map(x, size)
        x = x.reshape(B, size[0] // 2, 2, size[1] // 2, 2, C)
        # The order of the published weights: down the columns first.
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))
