"""Write digit scenes to a folder that mmdet, mmseg and mmpretrain can read.

::

    manifest.json                             parameters
    images/{training,validation}/*.png        scenes, RGB
    annotations/{training,validation}/*.png   class map: 0 background, d + 1
    annotations/instances_{training,validation}.json      COCO, RLE masks
    crops/{train,val}/<digit>/*.png           single digits, RGB

The folder is written under a temporary name and renamed, so it is always
complete.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .digit_glyphs import load_digit_pools
from .digit_scenes import (
    DIGIT_CLASSES,
    DigitSceneSpec,
    PlacedDigit,
    compose_crop,
    compose_scene,
)

MANIFEST = 'manifest.json'
# Increased whenever the same parameters give different files.
_GENERATOR = 'mmattn digit scenes 1'
_SCENE_FOLDERS = ('training', 'validation')
_CROP_FOLDERS = ('train', 'val')


class DigitFolder(NamedTuple):
    """Result of :func:`make_digit_folder`.

    Attributes:
        root: Folder of the data set.
        is_new: False if the data set already existed.
        moved: New path of a folder that was moved, or None.
    """

    root: Path
    is_new: bool
    moved: Path | None


def make_digit_folder(
    root: str | Path, spec: DigitSceneSpec | None = None, force: bool = False
) -> DigitFolder:
    """Create the digit scenes of ``spec`` at ``root``.

    Args:
        root: Folder of the data set. An identical data set is kept.
        spec: Parameters. Defaults to None: those of the digit scenes at
            ``root``, or of ``DigitSceneSpec()`` if there are none.
        force: Move other content of ``root`` to ``ROOT.old-N``.

    Raises:
        FileExistsError: If ``root`` is a file, or has other content and
            ``force`` is not set.
        ImportError: If scikit-learn is not installed.
    """
    root = Path(root).absolute()
    if root.is_file():
        raise FileExistsError(
            f'{root} is a file, not a folder; choose another path'
        )
    found = read_parameters(root)
    if found is not None and found == (spec or found):
        return DigitFolder(root, False, None)
    is_blank = not root.exists() or not any(root.iterdir())
    if not is_blank and not force:
        content = found or 'something other than digit scenes'
        raise FileExistsError(
            f'{root} contains {content}; choose another path, or replace it '
            'with --force'
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
        partial = Path(temporary, root.name)
        _write_all(partial, spec or DigitSceneSpec())
        moved = None
        if not is_blank:
            number = 1
            while (moved := Path(f'{root}.old-{number}')).exists():
                number += 1
            os.rename(root, moved)
        os.rename(partial, root)
    return DigitFolder(root, True, moved)


def read_parameters(root: str | Path) -> DigitSceneSpec | None:
    """Read the spec of the digit scenes at ``root``, or None."""
    try:
        manifest = json.loads(Path(root, MANIFEST).read_text())
        if manifest['generator'] == _GENERATOR:
            return DigitSceneSpec(**manifest['parameters'])
    except (OSError, KeyError, TypeError, ValueError):
        pass  # missing, damaged or of something else
    return None


def _write_all(root: Path, spec: DigitSceneSpec) -> None:
    annotations = root / 'annotations'
    counts = (spec.num_train, spec.num_val)
    for split, pool in enumerate(load_digit_pools(spec.seed)):
        name = _SCENE_FOLDERS[split]
        images, maps = root / 'images' / name, annotations / name
        images.mkdir(parents=True)
        maps.mkdir(parents=True)
        scenes = []
        for index in range(counts[split]):
            file = f'{index:06d}.png'
            scene = compose_scene(spec, pool, split, index)
            _write_png(images / file, scene.image)
            _write_png(maps / file, scene.classes)
            scenes.append((file, scene.digits))
        content = coco_annotations(scenes, spec.size)
        _write_json(annotations / f'instances_{name}.json', content)
        crops = root / 'crops' / _CROP_FOLDERS[split]
        for label in range(10):
            (crops / str(label)).mkdir(parents=True)
        for digit, label, image in zip(*pool):
            crop = compose_crop(spec, image, split, int(digit))
            _write_png(crops / str(label) / f'{digit:04d}.png', crop)
    manifest = dict(generator=_GENERATOR, parameters=asdict(spec))
    _write_json(root / MANIFEST, manifest)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)


def _write_json(path: Path, content: dict) -> None:
    # Sorted keys and '\n' give the same bytes on every system.
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    path.write_bytes(text.encode() + b'\n')


def encode_rle(mask: np.ndarray) -> dict:
    """Encode a mask, ``(H, W)`` bool, as uncompressed COCO RLE.

    The runs are in column-major order and start with the background.
    """
    # `diff` of bool is XOR; the first run is 0 if the mask starts inside.
    (edges,) = np.diff(mask.ravel(order='F'), prepend=False).nonzero()
    counts = np.diff([0, *edges, mask.size]).tolist()
    return dict(size=list(mask.shape), counts=counts)


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
        sides = dict(width=size, height=size)
        images.append(dict(id=image_id, file_name=name, **sides))
        for digit in digits:
            left, top, right, bottom = Image.fromarray(digit.mask).getbbox()
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
        dict(id=i, name=name) for i, name in enumerate(DIGIT_CLASSES, start=1)
    ]
    return dict(images=images, annotations=annotations, categories=categories)
