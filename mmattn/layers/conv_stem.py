"""The stem of SMT: two strided convolutions."""

import torch.nn as nn
from torch import Tensor

from .images import check_images, pad_images

_STRIDE = 4


class ConvStem(nn.Module):
    """Embed an image at stride 4 by two convolutions and a norm.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3. A convolution at
    stride 2 with batch normalization and ReLU, a 2x2 convolution at stride 2,
    a LayerNorm.

    Upstream differences: the published code drops the last row and column
    where two strides leave one over; here an image whose sides 4 does not
    divide is padded with zeros at the bottom and at the right.

    Args:
        in_channels (int): Channels of the image.
        embed_dims (int): Channels of the tokens.
        kernel_size (int): Side of the first convolution, odd. Defaults to 3.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, kernel_size: int = 3
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv = nn.Conv2d(
            in_channels,
            embed_dims,
            kernel_size,
            stride=2,
            padding=kernel_size // 2,
            bias=False,
        )
        self.batch_norm = nn.BatchNorm2d(embed_dims)
        self.act = nn.ReLU()
        self.proj = nn.Conv2d(embed_dims, embed_dims, 2, stride=2)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, H / 4, W / 4, C)``.

        Raises:
            ValueError: If the image has other channels or is smaller than
                the stride.
        """
        check_images(self, x, self.in_channels, _STRIDE)
        x = self.act(self.batch_norm(self.conv(pad_images(x, _STRIDE))))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))
