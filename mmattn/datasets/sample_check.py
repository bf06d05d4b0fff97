"""Find the faults of a sample of a data set."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

_ORIENTATION = 0x0112  # of EXIF: 1 is upright, 5 to 8 swap height and width


class Finding(NamedTuple):
    """A fault of a file, with what to do about it."""

    file: str
    fault: str
    is_error: bool = True

    def __str__(self) -> str:
        kind = 'error' if self.is_error else 'warning'
        return f'{kind}: {self.file}: {self.fault}'


class Labels(NamedTuple):
    """The labels that a model takes.

    Attributes:
        end: Number of classes, None if unknown.
        ignored: Labels that a loss leaves out.
    """

    end: int | None
    ignored: frozenset[int] = frozenset([255])

    def wrong(self, labels: Iterable[int]) -> list[int]:
        """Select the labels that the model does not take."""
        end = np.inf if self.end is None else self.end
        return [x for x in labels if not (0 <= x < end or x in self.ignored)]


class SampleCheck:
    """Check the files and the labels of one sample.

    Args:
        info: The sample, as the data set gives it to its pipeline.
        steps: The transforms of the pipeline.
        labels: The labels that the model takes.

    Attributes:
        findings: The faults.
        counts: Number of images, instances and pixels, and of pixels before
            labels are mapped (``'raw'``), by ``(what, label)``.
        digest: Of the content of the image.
    """

    def __init__(self, info: dict, steps: list, labels: Labels) -> None:
        self.info, self.labels = info, labels
        self.findings: list[Finding] = []
        self.counts: Counter[tuple[str, int]] = Counter()
        self.digest: bytes | None = None
        self.file = info.get('img_path')
        size = (info.get('height'), info.get('width'))
        with_mask = any(getattr(step, 'with_mask', False) for step in steps)
        if any(isinstance(step, LoadImageFromFile) for step in steps):
            size = self._check_image() or size
        if any(isinstance(step, LoadAnnotations) for step in steps):
            self._check_seg_map(size)
        for instance in info.get('instances', ()):
            self._check_instance(instance, size, with_mask)
        if 'gt_label' in info:
            labels = np.atleast_1d(info['gt_label']).tolist()
            self.counts.update(('images', label) for label in labels)
            self._check_labels(self.file, labels)
        for label in {x for what, x in self.counts if what != 'raw'}:
            self.counts['images', label] = 1

    def add(self, file: str, fault: str, is_error: bool = True) -> None:
        """Add a finding."""
        self.findings.append(Finding(file, fault, is_error))

    def _read(self, path: str) -> tuple[Image.Image | None, bytes]:
        content = b''
        try:
            content = fileio.get(path)
            image = Image.open(io.BytesIO(content))
            image.load()
            if min(image.size) > 0:
                return image, content
            self.add(path, 'has no pixels; remove it from the data set')
        except FileNotFoundError:
            self.add(path, 'does not exist; check data_root and data_prefix')
        except UnidentifiedImageError:
            what = 'is not an image' if content else 'is empty (0 bytes)'
            self.add(path, f'{what}; copy it again')
        except Exception as error:  # decoders raise anything
            fault = f'cannot be read ({error}); copy it again'
            self.add(path, fault if content else f'cannot be read: {error}')
        return None, content

    def _check_image(self) -> tuple[int, int] | None:
        if not isinstance(self.file, str):
            return None
        image, content = self._read(self.file)
        self.digest = hashlib.blake2b(content, digest_size=16).digest()
        if image is None:
            return None
        stored = image.size[::-1]
        turned = image.getexif().get(_ORIENTATION, 1)
        size = stored[::-1] if turned in (5, 6, 7, 8) else stored
        given = (self.info.get('height'), self.info.get('width'))
        if turned in range(2, 9):
            labelled = self.info.keys() & {'instances', 'seg_map_path'}
            self.add(
                self.file,
                f'has EXIF orientation {turned}: it is rotated when it is '
                'loaded, its annotations are not; save it upright',
                bool(labelled) and (given != size or size == stored),
            )
        if given not in (size, (None, None)):
            self.add(
                self.file,
                f'has {size[0]} x {size[1]} pixels (height x width), but '
                f'{given[0]} x {given[1]} in the annotations; correct them',
            )
        return size

    def _check_seg_map(self, size: tuple) -> None:
        path = self.info.get('seg_map_path')
        image = self._read(path)[0] if path else None
        if image is None:
            return
        pixels = np.array(image)
        if image.format == 'JPEG':
            self.add(path, 'is a JPEG, which changes labels; save it as PNG')
        if pixels.shape[:2] != size and None not in size:
            height, width = pixels.shape[:2]
            self.add(
                path,
                f'has {height} x {width} pixels (height x width), but its '
                f'image has {size[0]} x {size[1]}; make them equal',
            )
        if 'reduce_zero_label' not in self.info:  # of mmdet
            return
        if pixels.ndim > 2 or pixels.min() < 0 or pixels.max() > 255:
            self.add(
                path,
                'is a color image or has labels above 255; a label map has '
                'one index of 8 bits for each pixel (ADE20K: use '
                'ADEChallengeData2016)',
            )
            return
        raw = np.bincount(pixels.ravel(), minlength=256)
        table = map_labels(self.info)
        for label in np.flatnonzero(raw).tolist():
            self.counts['raw', label] += int(raw[label])
            if table[label] not in self.labels.ignored:
                self.counts['pixels', int(table[label])] += int(raw[label])
        mapped = [label for what, label in self.counts if what == 'pixels']
        self._check_labels(path, mapped)
        if not mapped:
            self.add(path, 'has ignored pixels only', False)

    def _check_instance(
        self, instance: dict, size: tuple, with_mask: bool
    ) -> None:
        label = instance.get('bbox_label')
        self.counts['instances', label] += 1
        self._check_labels(self.file, [label])
        box = np.asarray(instance['bbox'], dtype=float)
        width, height = box[2:4] - box[:2]
        if not np.isfinite(box).all():
            self.add(self.file, f'has a box with NaN or inf: {box.tolist()}')
        elif min(width, height) <= 0:
            self.add(self.file, f'has a box without area: {box.tolist()}')
        elif 'mask' not in instance:
            self.counts['pixels', label] += round(width * height)
            if with_mask:
                self.add(self.file, 'has an instance without a mask')
        else:
            fault = find_mask_fault(instance['mask'], size)
            if fault is not None:
                self.add(self.file, fault)
                return
            area = mask_area(instance['mask'], size)
            self.counts['pixels', label] += area
            if area == 0:
                self.add(self.file, 'has a mask without pixels', False)

    def _check_labels(self, path: str, labels: list[int]) -> None:
        wrong = sorted(self.labels.wrong(labels))
        if not wrong:
            return
        hint = 'correct the labels or the classes of the config'
        if wrong == [self.labels.end] and 'reduce_zero_label' in self.info:
            hint = (
                'if label 0 stands for no class, as in ADE20K, set '
                'reduce_zero_label=True'
            )
        self.add(
            path,
            f'has label {", ".join(map(str, wrong[:5]))}, but the config has '
            f'{self.labels.end} classes, from 0; {hint}',
        )


def map_labels(info: dict) -> np.ndarray:
    """What mmseg makes of each label of a map, ``(256, )`` int64."""
    table = np.arange(256)
    if info['reduce_zero_label']:
        table = np.where((table == 0) | (table == 255), 255, table - 1)
    new = table.copy()
    for old, label in (info.get('label_map') or {}).items():
        new[table == old] = label
    return new


def find_mask_fault(mask: Any, size: tuple[int, int]) -> str | None:
    """Check a mask in COCO's format before pycocotools reads it.

    pycocotools crashes or takes all memory if a mask does not fit its image.

    Args:
        mask: Polygons or a run-length encoding.
        size: Height and width of the image.

    Returns:
        The fault, or None.
    """
    if isinstance(mask, list):
        for polygon in mask:
            points = np.asarray(polygon, dtype=float)
            if not (abs(points) < 10 * max(size)).all():  # NaN, too
                return f'has a polygon far outside of the image: {polygon}'
        return None
    counts, total = mask['counts'], size[0] * size[1]
    wrong_sum = isinstance(counts, list) and sum(counts) != total
    if wrong_sum or tuple(mask['size']) != tuple(size):
        return (
            f'has a mask whose size {mask["size"]} or counts do not fit the '
            f'image, {size[0]} x {size[1]}'
        )
    return None


def mask_area(mask: Any, size: tuple[int, int]) -> int:
    """Count the pixels of a mask in COCO's format, as mmdet reads it."""
    from pycocotools import mask as rle

    if isinstance(mask, list):
        mask = [x for x in mask if len(x) >= 6 and len(x) % 2 == 0]
        if not mask:
            return 0
        mask = rle.merge(rle.frPyObjects(mask, *size))
    elif isinstance(mask['counts'], list):
        mask = rle.frPyObjects(mask, *size)
    return int(rle.area(mask))
