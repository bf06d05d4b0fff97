"""The check of an image that all stems share."""

import torch.nn as nn
from torch import Tensor


def check_images(
    layer: nn.Module, x: Tensor, channels: int, patch_size: int
) -> None:
    """Raise ValueError unless ``x`` holds images of at least a patch.

    Args:
        layer: Who asks.
        x: What should be ``(B, channels, H, W)``.
        channels: Channels of an image.
        patch_size: Least height and width, in pixels.
    """
    if x.ndim != 4 or x.shape[1] != channels or min(x.shape[2:]) < patch_size:
        raise ValueError(
            f'{type(layer).__name__} expects images (B, {channels}, H, W) of '
            f'at least {patch_size} x {patch_size} pixels, got '
            f'{tuple(x.shape)}'
        )
