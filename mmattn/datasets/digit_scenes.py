"""Compose digits on photographs.

Every scene and crop has its own generator, seeded by (seed, split, kind,
index), so it does not depend on the others or on their number.
"""

import colorsys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from .digit_glyphs import DigitPool, load_photos, upscale_digit

DIGIT_CLASSES = tuple('0123456789')

# Height of a digit's 8 x 8 box and its aspect, as fractions.
_SCENE_HEIGHTS = (0.2, 0.45)
_CROP_HEIGHTS = (0.6, 0.8)
_ASPECTS = (0.8, 1.25)
_DIGITS_PER_SCENE = (3, 8)
# Side of the photograph crop in the background, in image sides.
_BACKGROUND_SCALES = (0.5, 1.25)
# Light ink of any hue on darkened photographs: a small network learns the
# shapes within minutes.
_BACKGROUND_BRIGHTNESS = (0.35, 0.65)
_INK_SATURATION = (0.1, 0.7)
_INK_VALUE = (0.85, 1.0)
_INK_OPACITY = (0.85, 1.0)
_PLACEMENT_TRIES = 30
_SCENE, _CROP = 1, 2


@dataclass(frozen=True)
class DigitSceneSpec:
    """Parameters of a digit-scenes data set; equal specs give equal files.

    Args:
        seed: Random seed, >= 0.
        num_train: Number of training scenes, >= 1.
        num_val: Number of validation scenes, >= 1.
        size: Side of a scene in pixels, 64 to 1024, a multiple of 8.
            Crops of single digits have three eighths of it.

    Raises:
        ValueError: If a parameter is out of range.
    """

    seed: int = 0
    num_train: int = 400
    num_val: int = 100
    size: int = 128

    def __post_init__(self) -> None:
        if self.seed < 0 or self.num_train < 1 or self.num_val < 1:
            raise ValueError(
                'seed must be at least 0, num_train and num_val at least 1, '
                f'got {self}'
            )
        if not 64 <= self.size <= 1024 or self.size % 8:
            raise ValueError(
                'size must be a multiple of 8 between 64 and 1024, got '
                f'{self.size}'
            )

    @property
    def crop_size(self) -> int:
        """Side of a single-digit crop in pixels."""
        return self.size * 3 // 8


class PlacedDigit(NamedTuple):
    """One digit of a scene.

    Attributes:
        digit_index: Index in scikit-learn's ``load_digits``.
        label: 0 to 9.
        mask: Its foreground, ``(size, size)`` bool.
    """

    digit_index: int
    label: int
    mask: np.ndarray


class Scene(NamedTuple):
    """Digits on a photograph.

    Attributes:
        image: ``(size, size, 3)`` uint8 RGB.
        classes: ``(size, size)`` uint8: d + 1 on digit d, 0 elsewhere.
        digits: The digits, whose bounding boxes do not overlap.
    """

    image: np.ndarray
    classes: np.ndarray
    digits: list[PlacedDigit]


def compose_scene(
    spec: DigitSceneSpec, pool: DigitPool, split: int, index: int
) -> Scene:
    """Paste a few digits on a crop of a photograph.

    Args:
        spec: Seed and size.
        pool: Digits to draw from.
        split: Index of the split.
        index: Index of the scene in its split.
    """
    rng = np.random.default_rng([spec.seed, split, _SCENE, index])
    canvas = _cut_background(rng, spec.size)
    occupied = np.zeros((spec.size, spec.size), dtype=bool)
    classes = np.zeros((spec.size, spec.size), dtype=np.uint8)
    digits = []
    for _ in range(rng.integers(*_DIGITS_PER_SCENE, endpoint=True)):
        choice = rng.integers(len(pool.indices))
        height = round(spec.size * rng.uniform(*_SCENE_HEIGHTS))
        aspect = rng.uniform(*_ASPECTS)
        alpha = upscale_digit(pool.images[choice], height, aspect)
        for _ in range(_PLACEMENT_TRIES):
            window = _random_window(rng, alpha.shape, spec.size)
            if not occupied[window].any():
                break
        else:
            continue
        occupied[window] = True
        canvas[window] = _ink(rng, canvas[window], alpha)
        mask = np.zeros_like(occupied)
        mask[window] = alpha >= 0.5
        number, label = int(pool.indices[choice]), int(pool.labels[choice])
        classes[mask] = label + 1
        digits.append(PlacedDigit(number, label, mask))
    return Scene(np.rint(canvas).astype(np.uint8), classes, digits)


def compose_crop(
    spec: DigitSceneSpec, image: np.ndarray, split: int, index: int
) -> np.ndarray:
    """Paste one digit on a crop of a photograph.

    Args:
        spec: Seed and size.
        image: Ink, ``(8, 8)`` in [0, 1].
        split: Index of the split.
        index: Index of the crop in its split.

    Returns:
        ``(crop_size, crop_size, 3)`` uint8 RGB.
    """
    rng = np.random.default_rng([spec.seed, split, _CROP, index])
    side = spec.crop_size
    canvas = _cut_background(rng, side)
    height = round(side * rng.uniform(*_CROP_HEIGHTS))
    # A wider box than the crop would not fit into it.
    aspect = min(rng.uniform(*_ASPECTS), side / (height * 1.25))
    alpha = upscale_digit(image, height, aspect)
    window = _random_window(rng, alpha.shape, side)
    canvas[window] = _ink(rng, canvas[window], alpha)
    return np.rint(canvas).astype(np.uint8)


def _cut_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a crop of a photograph, ``(size, size, 3)`` float in 0..255."""
    photos = load_photos()
    photo = photos[rng.integers(len(photos))]
    side = round(size * rng.uniform(*_BACKGROUND_SCALES))
    side = min(side, *photo.shape[:2])
    top = rng.integers(photo.shape[0] - side + 1)
    left = rng.integers(photo.shape[1] - side + 1)
    piece = Image.fromarray(photo[top : top + side, left : left + side])
    piece = piece.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(piece) * rng.uniform(*_BACKGROUND_BRIGHTNESS)
    return pixels[:, ::-1].copy() if rng.random() < 0.5 else pixels


def _random_window(
    rng: np.random.Generator, shape: tuple[int, int], side: int
) -> tuple[slice, slice]:
    """Rows and columns of a box at a random place of a square image."""
    top, left = (int(rng.integers(side - length + 1)) for length in shape)
    return slice(top, top + shape[0]), slice(left, left + shape[1])


def _ink(
    rng: np.random.Generator, behind: np.ndarray, alpha: np.ndarray
) -> np.ndarray:
    """Blend ink of a random color over ``behind``, ``(h, w, 3)``."""
    hue, saturation = rng.random(), rng.uniform(*_INK_SATURATION)
    color = colorsys.hsv_to_rgb(hue, saturation, rng.uniform(*_INK_VALUE))
    alpha = alpha[..., None] * rng.uniform(*_INK_OPACITY)
    return behind * (1 - alpha) + 255 * np.array(color) * alpha
