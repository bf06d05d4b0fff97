"""Plain and dilated convolutions in parallel."""

from collections import OrderedDict

import torch
import torch.nn as nn
from mmcv.cnn import ConvModule
from torch import Tensor

_BATCH_NORM = dict(type='BN')


class ResidualConvs(nn.Module):
    """Two 3x3 convolutions, each batch-normalized, around a residual.

    Args:
        channels (int): Channels of the input and of the output.
        dilation (int): Distance of the taps of both, in pixels.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        options = dict(
            kernel_size=3,
            padding=dilation,
            dilation=dilation,
            norm_cfg=_BATCH_NORM,
            inplace=False,  # full backward hooks forbid in-place changes
        )
        self.conv1 = ConvModule(channels, channels, **options)
        self.conv2 = ConvModule(channels, channels, act_cfg=None, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        return torch.relu(x + self.conv2(self.conv1(x)))


class TwoPathBlock(nn.Module):
    """A plain and a dilated path of convolutions, fused.

    Source: https://arxiv.org/abs/2406.14052, section 2.1, bi-path residual
    block. Each path is a 1x1 convolution and two 3x3 convolutions around a
    residual; a 1x1 convolution with batch normalization fuses them.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1),
                ResidualConvs(out_channels, dilation),
            )
            for dilation in (1, 2)
        )
        # Not a ConvModule, which warns of the published bias before a norm.
        self.fuse = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(2 * out_channels, out_channels, 1),
                bn=nn.BatchNorm2d(out_channels),
                activate=nn.ReLU(),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        return self.fuse(torch.cat([path(x) for path in self.paths], dim=1))
