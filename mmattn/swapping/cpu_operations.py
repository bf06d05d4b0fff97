"""CPU versions of mmcv operations that only run on GPUs.

For checks only, not for training: shapes and gradient paths are those of
mmcv, but ``deform_roi_pool`` ignores its offsets.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch.nn.functional as F
from torch import Tensor


def _masked_conv2d(
    features: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """Convolve and zero the output outside the mask ``(1, H, W)``."""
    return F.conv2d(features, weight, bias, stride, padding) * (mask > 0)


def _carafe(
    features: Tensor,
    masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> Tensor:
    """Upsample ``(B, C, H, W)`` by a weighted sum of neighbours.

    Args:
        masks: ``(B, group_size * kernel_size ** 2, H * scale, W * scale)``.
    """
    batch, channels, height, width = features.shape
    taps = kernel_size**2
    near = F.unfold(features, kernel_size, padding=kernel_size // 2)
    near = near.view(batch, channels * taps, height, width)
    near = F.interpolate(near, scale_factor=scale_factor, mode='nearest')
    height, width = near.shape[2:]
    near = near.view(batch, group_size, -1, taps, height, width)
    weights = masks.view(batch, group_size, 1, taps, height, width)
    return (near * weights).sum(3).flatten(1, 2)


def _deform_roi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Pool without offsets; they only take part in the graph."""
    from mmcv.ops import roi_align

    pooled = roi_align(
        features, rois, output_size, spatial_scale, sampling_ratio
    )
    return pooled if offset is None else pooled + 0 * offset.sum()


@contextmanager
def cpu_operations() -> Iterator[None]:
    """Replace mmcv's GPU-only operations by these."""
    with ExitStack() as stack:
        for module, function in (
            ('masked_conv', _masked_conv2d),
            ('carafe', _carafe),
            ('deform_roi_pool', _deform_roi_pool),
        ):
            name = f'mmcv.ops.{module}.{function.__name__[1:]}'
            stack.enter_context(patch(name, function))
        yield
