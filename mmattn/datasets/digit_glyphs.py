"""Handwritten digits and photographs from scikit-learn.

Nothing is downloaded: scikit-learn includes the 1,797 digits of
``load_digits`` (8 x 8 pixels, 43 writers) and the two photographs of
``load_sample_images`` (427 x 640).
"""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

# Below one half, so that thin strokes stay connected.
_FOREGROUND = 0.4
# Strokes fade from opaque to transparent over this range, for soft edges.
_EDGE_WIDTH = 0.4
_MAX_GREY = 16.0
_VAL_FRACTION = 0.2


class DigitPool(NamedTuple):
    """Digits of one split.

    Attributes:
        indices: Index of each digit in ``load_digits``, ``(n,)``.
        labels: Labels 0 to 9, ``(n,)``.
        images: Ink, ``(n, 8, 8)`` float64 in [0, 1].
    """

    indices: np.ndarray
    labels: np.ndarray
    images: np.ndarray


def load_digit_pools(seed: int) -> tuple[DigitPool, DigitPool]:
    """Split the digits of each class into training and validation.

    Args:
        seed: Seed of the split, >= 0.

    Returns:
        The training pool (about 80 %) and the disjoint validation pool.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    digits = _sklearn_datasets().load_digits()
    rng = np.random.default_rng([seed, 0])
    is_val = np.zeros(len(digits.target), dtype=bool)
    for label in range(10):
        order = rng.permutation(np.flatnonzero(digits.target == label))
        is_val[order[: round(len(order) * _VAL_FRACTION)]] = True
    train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    images = digits.images / _MAX_GREY
    return (
        DigitPool(train, digits.target[train], images[train]),
        DigitPool(val, digits.target[val], images[val]),
    )


@functools.cache
def load_photos() -> list[np.ndarray]:
    """Return scikit-learn's two photographs, ``(427, 640, 3)`` uint8 RGB."""
    return list(_sklearn_datasets().load_sample_images().images)


def upscale_digit(image: np.ndarray, height: int, aspect: float) -> np.ndarray:
    """Upscale an 8 x 8 digit.

    Args:
        image: Ink, ``(8, 8)`` in [0, 1].
        height: Height of the upscaled 8 x 8 box in pixels, 12 or more.
        aspect: Width of the box divided by its height.

    Returns:
        Opacity of the ink, ``(h, w)`` float64 in [0, 1], cropped to the
        foreground (0.5 and more) plus at most one pixel.
    """
    # Padding lets strokes at the border of the 8 x 8 box end smoothly.
    padded = np.pad(image, 1).astype(np.float32)
    cells = 10 / 8
    size = (round(height * aspect * cells), round(height * cells))
    ink = Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC)
    ink = np.asarray(ink, dtype=np.float64)
    alpha = np.clip((ink - _FOREGROUND) / _EDGE_WIDTH + 0.5, 0, 1)
    left, top, right, bottom = Image.fromarray(alpha >= 0.5).getbbox()
    return alpha[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]


def _sklearn_datasets():
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            'digit scenes are made from data in scikit-learn; run '
            '`pip install scikit-learn`'
        ) from error
    return datasets
