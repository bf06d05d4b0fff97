"""Downsampling of Swin Transformer."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .linear import Linear


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
        self.reduction = Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H / 2, W / 2, out_channels)``."""
        H, W = x.shape[1:3]
        if H % 2 or W % 2:
            x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
        # The order of the published weights: down the columns first.
        x = torch.cat(
            (
                x[:, 0::2, 0::2],
                x[:, 1::2, 0::2],
                x[:, 0::2, 1::2],
                x[:, 1::2, 1::2],
            ),
            dim=-1,
        )
        return self.reduction(self.norm(x))
