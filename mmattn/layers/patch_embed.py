"""The stem that turns an image into a map of patch tokens."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmattn.ops import padded_size, sizes_vary

from .checks import check_images
from .conv2d import Conv2d
from .layer_norm import LayerNorm


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
        self.patch_size = patch_size
        self.proj = Conv2d(in_channels, embed_dims, patch_size, patch_size)
        self.norm = LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, H / patch, W / patch, C)``.

        Raises:
            ValueError: If the image has other channels or is smaller than a
                patch.
        """
        p = self.patch_size
        check_images(self, x, self.proj.in_channels, p)
        H, W = x.shape[2:]
        if sizes_vary(x) or H % p or W % p:
            bottom, right = padded_size((H, W), (p, p))
            x = F.pad(x, (0, right - W, 0, bottom - H))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))
