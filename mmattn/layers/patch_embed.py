"""The stem that turns an image into a map of patch tokens."""

import torch.nn as nn
from torch import Tensor

from .images import check_images, pad_images


class PatchEmbed(nn.Module):
    """Embed disjoint square patches by a strided convolution and a norm.

    Source: https://arxiv.org/abs/2103.14030, section 3.1. An image that the
    patch does not divide is padded with zeros at the bottom and at the right.

    Args:
        in_channels (int): Channels of the image.
        embed_dims (int): Channels of the tokens.
        patch_size (int): Patch side, in pixels. Defaults to 4.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, patch_size: int = 4
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, H / patch, W / patch, C)``.

        Raises:
            ValueError: If the image has other channels or is smaller than a
                patch.
        """
        check_images(self, x, self.in_channels, self.patch_size)
        x = self.proj(pad_images(x, self.patch_size))
        return self.norm(x.permute(0, 2, 3, 1))
