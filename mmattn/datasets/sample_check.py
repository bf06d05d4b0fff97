"""Find the faults of a sample of a data set."""

import hashlib
import io
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine import fileio
from PIL import ExifTags, Image, UnidentifiedImageError

Size = tuple[int | None, int | None]  # height, width


class Labels(NamedTuple):
    """Labels that a model accepts: 0 to ``end - 1``, and the ignored ones."""

    end: int | None
    ignored: frozenset[int] = frozenset([255])

    def find_wrong(self, labels: Any) -> list[int]:
        """List the labels that the model does not accept."""
        labels = np.asarray(labels)
        wrong = labels < 0
        if self.end is not None:
            wrong = wrong | (labels >= self.end)
        for label in self.ignored:  # np.isin is several times slower
            wrong = wrong & (labels != label)
        return np.unique(labels[wrong]).tolist()


class Check:
    """What a check finds.

    Args:
        file: The file that is checked.

    Attributes:
        errors: Faults that stop or spoil a training, as ``FILE: FAULT``.
        warnings: Other faults.
        counts: Number of images, instances and pixels by ``(what, label)``;
            ``'raw'`` are pixels by the labels of the file.
        digests: An image by the digest of its size and pixels.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.counts: Counter[tuple[str, int]] = Counter()
        self.digests: dict[bytes, str] = {}

    def add(self, fault: str, is_error: bool = True, file: str = '') -> None:
        """Add a fault, by default of the checked file, and how to fix it."""
        faults = self.errors if is_error else self.warnings
        faults.append(f'{file or self.file}: {fault}')


class SampleCheck(Check):
    """Check the files and the labels of one sample.

    Args:
        info: The sample, as the data set gives it to its pipeline.
        steps: The transforms of the pipeline.
        labels: The labels that the model accepts.
    """

    def __init__(self, info: dict, steps: list, labels: Labels) -> None:
        super().__init__(info.get('img_path'))
        self.info, self.labels = info, labels
        self.size: Size = (info.get('height'), info.get('width'))
        for step in steps:
            if isinstance(step, LoadImageFromFile) and self.file:
                self._check_image(step.backend_args)
        for step in steps:
            if isinstance(step, LoadAnnotations) and info.get('seg_map_path'):
                self._check_map(info['seg_map_path'], step.backend_args)
        with_mask = loads_masks(steps)
        for instance in info.get('instances', ()):
            self._check_instance(instance, with_mask)
        if 'gt_label' in info:
            given = np.atleast_1d(info['gt_label']).tolist()
            self.counts.update(('images', label) for label in given)
            self._check_labels(self.file, given)
        for label in {x for what, x in self.counts if what != 'raw'}:
            self.counts['images', label] = 1

    def _read(
        self, file: str, backend_args: dict | None
    ) -> Image.Image | None:
        content = b''
        try:
            content = fileio.get(file, backend_args=backend_args)
            image = Image.open(io.BytesIO(content))
            image.load()
            return image
        except FileNotFoundError:
            fault = 'does not exist; check data_root and data_prefix'
        except UnidentifiedImageError:
            what = 'is not an image' if content else 'is empty (0 bytes)'
            fault = f'{what}; copy it again'
        except Exception as error:  # decoders raise anything
            fault = f'cannot be read ({error}); copy it again'
        self.add(fault, file=file)
        return None

    def _check_image(self, backend_args: dict | None) -> None:
        image = self._read(self.file, backend_args)
        if image is None:
            return
        # Modes I and F have more than 8 bits, which a conversion clips.
        pixels = image if image.mode[0] in 'IF' else image.convert('RGB')
        digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
        digest.update(pixels.tobytes())
        self.digests[digest.digest()] = self.file
        given, stored = self.size, image.size[::-1]
        # 1 is upright, 5 to 8 swap height and width.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1)
        self.size = stored[::-1] if turned in (5, 6, 7, 8) else stored
        if turned in range(2, 9):
            labelled = self.info.keys() & {'instances', 'seg_map_path'}
            self.add(
                f'has EXIF orientation {turned}: loading rotates it but not '
                'its annotations; save it upright',
                bool(labelled) and (given != self.size or given == stored),
            )
        if given not in (self.size, (None, None)):
            self.add(
                f'has {_text(self.size)} pixels, but {_text(given)} in the '
                'annotations; correct them'
            )

    def _check_map(self, file: str, backend_args: dict | None) -> None:
        image = self._read(file, backend_args)
        if image is None:
            return
        add = partial(self.add, file=file)
        pixels = np.array(image)
        if image.format == 'JPEG':
            add('is a JPEG, which changes labels; save it as PNG')
        size = pixels.shape[:2]
        if size != self.size and None not in self.size:
            add(
                f'has {_text(size)} pixels, but its image has '
                f'{_text(self.size)}; make them equal'
            )
        if 'reduce_zero_label' not in self.info:  # of mmdet
            return
        if pixels.ndim > 2 or pixels.min() < 0 or pixels.max() > 255:
            add(
                'is a color image or has labels above 255; a label map has '
                'one 8-bit index per pixel (ADE20K: ADEChallengeData2016)'
            )
            return
        raw = np.bincount(pixels.ravel())
        mapped = np.arange(256)  # what mmseg makes of each label
        if self.info['reduce_zero_label']:
            mapped = np.array([255, *range(254), 255])
        renamed = self.info.get('label_map') or {}
        for label in np.flatnonzero(raw).tolist():
            self.counts['raw', label] += int(raw[label])
            new = renamed.get(mapped[label], int(mapped[label]))
            if new not in self.labels.ignored:
                self.counts['pixels', new] += int(raw[label])
        found = [label for what, label in self.counts if what == 'pixels']
        self._check_labels(file, found)
        if not found:
            add('has ignored pixels only', False)

    def _check_instance(self, instance: dict, with_mask: bool) -> None:
        label, mask = instance['bbox_label'], instance.get('mask')
        self.counts['instances', label] += 1
        self._check_labels(self.file, [label])
        box = np.asarray(instance['bbox'], dtype=float)
        width, height = box[2:] - box[:2]
        area = round(width * height) if np.isfinite(box).all() else 0
        if area <= 0:
            self.add(f'has a box without area or with NaN: {box.tolist()}')
        elif mask is None and with_mask:
            self.add('has an instance without a mask')
        elif mask is not None:
            try:
                area = measure_mask(mask, self.size)
            except Exception as error:  # annotations can hold anything
                fault = str(error)  # of `check_mask`
                if type(error) is not ValueError:
                    fault = f'{type(error).__name__}: {error}'
                self.add(f'has an invalid mask ({fault}); correct it')
                return
            if area == 0:
                self.add('has a mask without pixels', False)
        self.counts['pixels', label] += max(area, 0)

    def _check_labels(self, file: str, labels: list[int]) -> None:
        wrong = self.labels.find_wrong(labels)
        if not wrong:
            return
        hint = 'correct the labels or the classes of the config'
        if wrong == [self.labels.end] and 'reduce_zero_label' in self.info:
            hint = 'reduce_zero_label=True if label 0 is no class (ADE20K)'
        self.add(
            f'has label {", ".join(map(str, wrong[:5]))}, but the config has '
            f'{self.labels.end} classes, counted from 0; {hint}',
            file=file,
        )


def loads_masks(steps: list) -> bool:
    """Whether transforms load the masks of instances."""
    return any(getattr(step, 'with_mask', False) for step in steps)


def check_mask(mask: Any, size: Size) -> None:
    """Check a mask in COCO's format before pycocotools reads it.

    pycocotools crashes or takes all memory if a mask does not fit its image.

    Args:
        mask: Polygons or a run-length encoding.
        size: Of the image.

    Raises:
        ValueError: If it does not fit.
    """
    if isinstance(mask, list):
        for polygon in mask:
            points = np.abs(np.asarray(polygon, dtype=float))
            if not (points < 10 * max(size)).all():  # NaN, too
                raise ValueError(f'polygon far outside: {polygon}')
        return
    if tuple(mask['size']) != tuple(size):
        found, expected = _text(mask['size']), _text(size)
        raise ValueError(f'its size is {found}, that of the image {expected}')
    counts, total = mask['counts'], size[0] * size[1]
    if isinstance(counts, list) and sum(counts) != total:
        raise ValueError(
            f'its counts add up to {sum(counts)} pixels, the image has {total}'
        )


def measure_mask(mask: Any, size: Size) -> int:
    """Number of pixels of a mask; see :func:`check_mask`."""
    from pycocotools import mask as rle

    check_mask(mask, size)
    if isinstance(mask, list):  # mmdet leaves out what is no polygon
        mask = [x for x in mask if len(x) >= 6 and len(x) % 2 == 0]
        mask = rle.merge(rle.frPyObjects(mask, *size)) if mask else []
    elif isinstance(mask['counts'], list):
        mask = rle.frPyObjects(mask, *size)
    return int(rle.area(mask)) if mask else 0


def _text(size: Size) -> str:
    return f'{size[0]} x {size[1]}'
