"""Annotations of digit scenes: COCO instances and semantic maps."""

from collections.abc import Sequence

import numpy as np

from mmattn.datasets.digit_scenes import DIGIT_CLASSES, PlacedDigit


def encode_rle(mask: np.ndarray) -> dict:
    """Encode a mask as uncompressed COCO RLE.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        ``size`` (H, W) and ``counts``: lengths of the runs in column-major
        order, starting with background (0 if the first pixel is set).
    """
    flat = mask.ravel(order='F')
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat[0]:
        counts.insert(0, 0)
    return dict(size=list(mask.shape), counts=counts)


def tight_box(mask: np.ndarray) -> list[int]:
    """Return the bounding box of a mask in COCO format.

    Args:
        mask: ``(H, W)`` bool with at least one pixel set.

    Returns:
        ``[left, top, width, height]`` in pixels.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    cols = np.flatnonzero(mask.any(axis=0))
    return [
        int(cols[0]),
        int(rows[0]),
        int(cols[-1] - cols[0] + 1),
        int(rows[-1] - rows[0] + 1),
    ]


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
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=digit.label + 1,
                    digit_index=digit.digit_index,
                    bbox=tight_box(digit.mask),
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
    """Return the class of each pixel, ``(size, size)`` uint8.

    0 is background, d + 1 is digit d.
    """
    classes = np.zeros((size, size), dtype=np.uint8)
    for digit in digits:
        classes[digit.mask] = digit.label + 1
    return classes
