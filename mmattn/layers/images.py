"""Check and padding of images that the stems share."""

import torch.nn as nn
from torch import Tensor

from mmattn.ops import pad_map, padded_size


def check_images(
    layer: nn.Module, x: Tensor, channels: int, patch_size: int
) -> None:
    """Raise ValueError unless ``x`` holds images of at least one patch.

    Args:
        layer: The stem, named in the message.
        x: Should be ``(B, channels, H, W)``.
        channels: Channels of an image.
        patch_size: Smallest height and width, in pixels.
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
