"""Prepare images for a network, and map its tokens to them.

Sizes are ``(height, width)``, positions ``(row, column)``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn
from PIL import Image
from torch import Tensor

Size = tuple[int, int]

# Mean and standard deviation of ImageNet (RGB, 0 to 255).
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
# On larger images, tokens would be too small to distinguish on the page.
_MAX_SIDE = 512
# Default pixels, as fractions of height and width.
DEFAULT_PLACES = ((0.33, 0.33), (0.67, 0.67))
_PADDING = 128
_MAX_PIXELS = 100_000_000
# If the sides of a token differ by more, the map is something else than a
# feature map of the image, such as a sequence.
_MAX_ASPECT = 2**0.5
_STRIDES = tuple(2**i for i in range(9))


@dataclass(frozen=True)
class NetworkImage:
    """An image that was prepared for a network.

    Attributes:
        picture: The network's input before normalization, ``(H, W, 3)``
            uint8 RGB, with grey padding.
        content_size: Height and width without padding at the bottom and
            right.
        file_size: Height and width of the file.
        scale: Factors by which height and width were resized.
        offset: Rows and columns cropped at the top and left after resizing.
        inputs: Normalized input ``(1, C, H, W)``, or None if unknown.
    """

    picture: np.ndarray
    content_size: Size
    file_size: Size
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    inputs: Tensor | None = None

    def locate(self, row: int, column: int) -> Size:
        """Map a pixel of the file to :attr:`picture`.

        Raises:
            ValueError: If it is outside of the file or was cropped.
        """
        height, width = self.file_size
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f'pixel {(row, column)} is outside of the image, which has '
                f'{height} rows and {width} columns'
            )
        place = tuple(
            int((x + 0.5) * scale - start)
            for x, scale, start in zip((row, column), self.scale, self.offset)
        )
        if not all(0 <= x < n for x, n in zip(place, self.content_size)):
            raise ValueError(
                f"the config's test pipeline crops pixel {(row, column)}: it "
                f'keeps the central {self.content_size[0]} x '
                f'{self.content_size[1]} pixels after resizing; choose '
                'another pixel'
            )
        return place

    def pixels_at(
        self, places: Sequence[tuple[float, float]] = DEFAULT_PLACES
    ) -> list[Size]:
        """Pixels of :attr:`picture` at fractions of its height and width."""
        height, width = self.content_size
        return [(int(r * height), int(c * width)) for r, c in places]


def read_picture(path: str | Path) -> np.ndarray:
    """Read an image of any mode as ``(H, W, 3)`` uint8 RGB.

    Raises:
        ValueError: If it does not exist, is damaged or not an image.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f'it has more than {_MAX_PIXELS:,} pixels')
            return np.array(image.convert('RGB'))
    except Exception as error:  # damaged files raise anything
        raise ValueError(f'cannot read image {path}: {error}') from error


def image_for_backbone(picture: np.ndarray) -> NetworkImage:
    """Normalize an image for a backbone trained on ImageNet.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB. Images with a side above 512 pixels
            are shrunk, none is enlarged.
    """
    file_size = picture.shape[:2]
    image = Image.fromarray(picture)
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.BILINEAR)
    picture = np.asarray(image)
    size = picture.shape[:2]
    normalized = (picture - np.array(_MEAN)) / np.array(_STD)
    inputs = torch.from_numpy(normalized).float().permute(2, 0, 1)[None]
    scale = tuple(after / before for after, before in zip(size, file_size))
    return NetworkImage(picture, size, file_size, scale, inputs=inputs)


def image_for_model(
    model: nn.Module, pipeline: Callable[[dict], dict], path: str | Path
) -> NetworkImage:
    """Prepare an image as the config of a model does.

    Args:
        model: A model with a ``data_preprocessor``.
        pipeline: The test pipeline, without loading of annotations.
        path: A file that :func:`read_picture` can read.
    """
    data = pipeline(dict(img_path=str(path), img_id=0, seg_fields=[]))
    sample = data['data_samples']
    batch = dict(inputs=[data['inputs']], data_samples=[sample])
    inputs = model.data_preprocessor(batch, False)['inputs']
    file_size = tuple(sample.ori_shape[:2])
    content_size = tuple(data['inputs'].shape[-2:])
    # (width, height); missing if the pipeline does not resize.
    scale = tuple(sample.get('scale_factor', (1.0, 1.0)))[1::-1]
    # Anything smaller than the resized image is a center crop of it.
    offset = tuple(
        max(0, (round(side * s) - left) // 2)
        for side, s, left in zip(file_size, scale, content_size)
    )
    return NetworkImage(
        inputs_to_picture(data['inputs'], tuple(inputs.shape[-2:])),
        content_size,
        file_size,
        scale,
        offset,
        inputs,
    )


def inputs_to_picture(inputs: Tensor, size: Size) -> np.ndarray:
    """Convert the output of a test pipeline to an image.

    Args:
        inputs: ``(C, h, w)``, BGR, 0 to 255 unless normalized.
        size: Height and width of the network's input: padded, or cropped.

    Returns:
        ``(*size, 3)`` uint8 RGB.
    """
    x = inputs.detach().cpu().float()
    x = x.flip(0) if len(x) == 3 else x.mean(0, keepdim=True)
    if x.min() < 0 or x.max() <= 1:  # the pipeline has normalized it
        x = 255 * (x - x.min()) / (x.max() - x.min()).clamp(min=1e-6)
    x = x.clamp(0, 255).byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
    picture = np.full((*size, 3), _PADDING, np.uint8)
    height, width = (min(a, b) for a, b in zip(size, x.shape))
    picture[:height, :width] = x[:height, :width]
    return picture


class TokenGrid(NamedTuple):
    """Layout of tokens on an image.

    Attributes:
        size: Rows and columns of tokens.
        cell: Height and width of a token in pixels.
    """

    size: Size
    cell: tuple[float, float]

    def token_at(self, row: int, column: int) -> Size:
        """The token that contains a pixel."""
        axes = zip((row, column), self.cell, self.size)
        r, c = (min(int(x // cell), n - 1) for x, cell, n in axes)
        return r, c


def fit_tokens(size: Size, picture: Size) -> TokenGrid | None:
    """Find the stride between an image and a feature map.

    Where a stride does not divide the image, the last tokens extend beyond
    it.

    Args:
        size: Rows and columns of the map.
        picture: Height and width of the network's input in pixels.

    Returns:
        The grid, or None if the map is not a feature map of the image.
    """
    for stride in _STRIDES:
        if tuple(-(-side // stride) for side in picture) == tuple(size):
            return TokenGrid(tuple(size), (stride, stride))
    height, width = (side / n for side, n in zip(picture, size))
    if abs(math.log(height / width)) > math.log(_MAX_ASPECT):
        return None
    return TokenGrid(tuple(size), (height, width))
