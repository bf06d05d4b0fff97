"""Annotations of digit scenes: COCO instances and semantic maps."""

from collections.abc import Sequence

import numpy as np

from .digit_glyphs import bounds
from .digit_scenes import DIGIT_CLASSES, PlacedDigit


def encode_rle(mask: np.ndarray) -> dict:
    """Encode a mask, ``(H, W)`` bool, as uncompressed COCO RLE.

    The runs are in column-major order and start with the background.
    """
    flat = mask.ravel(order='F')
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return dict(size=list(mask.shape), counts=[0] * bool(flat[0]) + counts)


def coco_annotations(
    scenes: Sequence[tuple[str, Sequence[PlacedDigit]]], size: int
) -> dict:
    """Return the content of a COCO instances file.

    Args:
        scenes: File name and digits of each image.
        size: Side of the images in pixels.

    Returns:
        ``images``, ``annotations`` and ``categories``. Category d + 1 is digit
        d; ``digit_index`` of an annotation is its index in scikit-learn's
        ``load_digits``.
    """
    images, annotations = [], []
    for image_id, (name, digits) in enumerate(scenes, start=1):
        images.append(
            dict(id=image_id, file_name=name, width=size, height=size)
        )
        for digit in digits:
            top, bottom, left, right = bounds(digit.mask)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=digit.label + 1,
                    digit_index=digit.digit_index,
                    bbox=[left, top, right - left, bottom - top],
                    area=int(digit.mask.sum()),
                    iscrowd=0,
                    segmentation=encode_rle(digit.mask),
                )
            )
    categories = [
        dict(id=label + 1, name=name)
        for label, name in enumerate(DIGIT_CLASSES)
    ]
    return dict(images=images, annotations=annotations, categories=categories)


def semantic_map(digits: Sequence[PlacedDigit], size: int) -> np.ndarray:
    """Class of each pixel, uint8: d + 1 on digit d, 0 elsewhere."""
    classes = np.zeros((size, size), dtype=np.uint8)
    for digit in digits:
        classes[digit.mask] = digit.label + 1
    return classes
