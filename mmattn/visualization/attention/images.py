"""A picture, as a network is given it and as it is shown below attention."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .geometry import Size

# Of ImageNet's pictures, red, green, blue, from 0 to 255.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
# A larger photograph is made smaller for a bare backbone: its tokens could
# not be told apart on a page.
_LONGEST_SIDE = 512
# Where the default pixels lie, as parts of the height and of the width.
DEFAULT_PLACES = ((0.33, 0.33), (0.67, 0.67))
_EMPTY = 128


@dataclass(frozen=True)
class NetworkImage:
    """A picture on its way into a network.

    Attributes:
        picture: What the network sees, ``(H, W, 3)`` uint8 RGB, before the
            normalisation, with its padding in grey.
        filled: Height and width of the picture without padding, which lies
            below and to the right.
        source: Height and width of the file.
        scale: Pixels of the resized file per pixel of the file, by side.
        offset: Rows and columns that were cut off above and to the left
            after resizing.
        inputs: ``(1, C, H, W)``, normalised; None if that is not known.
    """

    picture: np.ndarray
    filled: Size
    source: Size
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    inputs: Tensor | None = None

    def locate(self, row: int, column: int) -> Size:
        """Where a pixel of the file lies on :attr:`picture`.

        Raises:
            ValueError: If it lies outside of the file, or of what is left of
                it.
        """
        height, width = self.source
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f'pixels are expected inside of the picture, (row, column) '
                f'from (0, 0) to {(height - 1, width - 1)}, got '
                f'{(row, column)}'
            )
        place = tuple(
            int((x + 0.5) * scale - start)
            for x, scale, start in zip((row, column), self.scale, self.offset)
        )
        if not all(0 <= x < side for x, side in zip(place, self.filled)):
            raise ValueError(
                f'the pixel {(row, column)} is cut off by the test pipeline '
                f'of the config, which leaves {self.filled[0]} x '
                f'{self.filled[1]} pixels of the middle; choose another'
            )
        return place

    def default_pixels(self) -> list[Size]:
        """Two places on :attr:`picture`."""
        return self.pixels_at(DEFAULT_PLACES)

    def pixels_at(self, places: tuple[tuple[float, float], ...]) -> list[Size]:
        """Pixels of :attr:`picture` at parts of its height and width."""
        height, width = self.filled
        return [(int(r * height), int(c * width)) for r, c in places]


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture of any mode as ``(H, W, 3)`` uint8 RGB.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture, or damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'a picture is expected, got {path}, which is no file'
        )
    try:
        with Image.open(path) as image:
            return np.array(image.convert('RGB'))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f'a picture is expected, got {path}, which cannot be read: {error}'
        ) from error


def image_for_backbone(picture: np.ndarray) -> NetworkImage:
    """Prepare a picture for a backbone alone, as for ImageNet's pictures.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB. It is shrunk where a side is longer
            than 512 pixels, and never enlarged.
    """
    source = picture.shape[:2]
    ratio = min(1.0, _LONGEST_SIDE / max(source))
    size = tuple(max(1, round(side * ratio)) for side in source)
    if size != source:
        shrunk = Image.fromarray(picture).resize(size[::-1], Image.BILINEAR)
        picture = np.asarray(shrunk)
    normalised = (picture - np.array(_MEAN)) / np.array(_STD)
    inputs = torch.from_numpy(normalised).float().permute(2, 0, 1)[None]
    scale = tuple(after / before for after, before in zip(size, source))
    return NetworkImage(picture, size, source, scale, inputs=inputs)


def image_for_model(
    model: nn.Module, pipeline: Callable[[dict], dict], path: str | Path
) -> NetworkImage:
    """Prepare a file as the config of mmdet, mmseg or mmpretrain does.

    Args:
        model: A model of a host, with a ``data_preprocessor``.
        pipeline: The test pipeline, without what loads annotations.
        path: A file that can be read, see :func:`read_picture`.
    """
    data = pipeline(dict(img_path=str(path), img_id=0, seg_fields=[]))
    sample = data['data_samples']
    batch = dict(inputs=[data['inputs']], data_samples=[sample])
    inputs = model.data_preprocessor(batch, False)['inputs']
    source = tuple(sample.ori_shape[:2])
    filled = tuple(data['inputs'].shape[-2:])
    # (width, height), or absent where nothing is resized.
    scale = tuple(sample.get('scale_factor', (1.0, 1.0)))[1::-1]
    # What is smaller than the resized file was cut out of its middle.
    offset = tuple(
        max(0, (round(side * s) - left) // 2)
        for side, s, left in zip(source, scale, filled)
    )
    return NetworkImage(
        show_inputs(data['inputs'], tuple(inputs.shape[-2:])),
        filled,
        source,
        scale,
        offset,
        inputs,
    )


def show_inputs(inputs: Tensor, size: Size) -> np.ndarray:
    """Turn what a test pipeline gives into a picture.

    Args:
        inputs: ``(C, h, w)``, blue before red, from 0 to 255 before
            normalisation.
        size: Height and width of the picture, with the padding that the
            network was given; or less, where it was given a corner.

    Returns:
        ``(*size, 3)`` uint8 RGB.
    """
    x = inputs.detach().cpu().float()
    x = x.flip(0) if len(x) == 3 else x.mean(0, keepdim=True)
    if x.min() < 0 or x.max() <= 1:  # normalised by the pipeline already
        x = 255 * (x - x.min()) / (x.max() - x.min()).clamp(min=1e-6)
    x = x.clamp(0, 255).byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
    picture = np.full((*size, 3), _EMPTY, np.uint8)
    height, width = (min(a, b) for a, b in zip(size, x.shape))
    picture[:height, :width] = x[:height, :width]
    return picture
