"""Stems, from images to tokens, and downsampling."""

import torch.nn as nn
from torch import Tensor

from mmattn.ops import pad_map, padded_size

_STRIDE = 4


def check_images(
    layer: nn.Module, x: Tensor, channels: int, patch_size: int
) -> None:
    """Raise ValueError unless ``x`` is images ``(B, channels, H, W)``.

    H and W must be at least ``patch_size``.
    """
    if x.ndim != 4 or x.shape[1] != channels or min(x.shape[2:]) < patch_size:
        raise ValueError(
            f'{type(layer).__name__} expects images (B, {channels}, H, W) of '
            f'at least {patch_size} x {patch_size} pixels, got '
            f'{tuple(x.shape)}'
        )


def pad_images(x: Tensor, patch_size: int) -> Tensor:
    """Zero-pad ``(B, C, H, W)`` at the bottom and right to whole patches."""
    size = padded_size(tuple(x.shape[2:]), (patch_size, patch_size))
    return pad_map(x.permute(0, 2, 3, 1), size).permute(0, 3, 1, 2)


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
        """Map ``(B, in_channels, H, W)`` to ``(B, H / p, W / p, C)``."""
        check_images(self, x, self.in_channels, self.patch_size)
        x = self.proj(pad_images(x, self.patch_size))
        return self.norm(x.permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Merge each 2 x 2 tokens into one.

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


class OverlappingPatchEmbed(nn.Module):
    """Embed overlapping patches by a strided convolution and a norm.

    Source: CSWin, https://arxiv.org/abs/2107.00652, section 3.1. Patches of
    7x7 pixels at stride 4, with two pixels of zeros around the image. A side
    of n pixels gives ``(n + 1) // 4`` tokens, as published.

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
        """Map ``(B, in_channels, H, W)`` to ``(B, H / 4, W / 4, C)``."""
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


class ConvStem(nn.Module):
    """Embed an image at stride 4 by two convolutions and a norm.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3. A convolution at
    stride 2 with batch normalization and ReLU, a 2x2 convolution at stride 2,
    a LayerNorm.

    Upstream differences: the published code drops rows and columns beyond a
    multiple of 4; here the image is zero-padded at the bottom and right.

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
        """Map ``(B, in_channels, H, W)`` to ``(B, H / 4, W / 4, C)``."""
        check_images(self, x, self.in_channels, _STRIDE)
        x = self.act(self.batch_norm(self.conv(pad_images(x, _STRIDE))))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))
