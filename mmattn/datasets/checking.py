"""Find the faults of the data sets of a config before a training starts."""

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from rich.console import Console
from rich.progress import track

from mmattn.config import nested_dicts
from mmattn.datasets.sample_check import Check, Labels, SampleCheck

REPORT_INTERVAL = 10.0  # seconds between lines of progress in a log


class DatasetCheck(Check):
    """Check the annotation file and the classes of a data set.

    Args:
        node: Config of the data set.
        cfg: The config that it is part of.
    """

    def __init__(self, node: dict, cfg: Config) -> None:
        prefix = node.get('data_prefix') or ''
        if isinstance(prefix, dict):
            prefix = next(iter(prefix.values()), '')
        super().__init__(
            fileio.join_path(
                node.get('data_root') or '', node.get('ann_file') or prefix
            )
        )
        self.dataset: Any = None
        self.classes: tuple[str, ...] = ()
        dataset: Any = None
        scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope'))
        try:
            # pycocotools prints what it does.
            with scope, contextlib.redirect_stdout(io.StringIO()):
                dataset = DATASETS.build(dict(node, lazy_init=True))
                self._load(dataset, cfg)
        except Exception as error:  # the files can hold anything
            if dataset is None and isinstance(error, (KeyError, TypeError)):
                raise  # a mistake in the config
            if not self.errors:
                kind = type(error).__name__
                self.add(f'cannot be loaded ({kind}: {error})')

    def check_samples(self, split: str, workers: int) -> None:
        """Check each sample in threads; progress goes to stderr."""
        dataset = self.dataset
        steps = dataset.pipeline.transforms

        def check(index: int) -> SampleCheck:
            info = dataset.get_data_info(index)
            return SampleCheck(info, steps, self.labels)

        with ThreadPool(workers) as pool:
            total, last = len(dataset), time.monotonic()
            samples = pool.imap(check, range(total), 8)
            console = Console(stderr=True)
            if console.is_terminal:
                samples = track(samples, split, total, console=console)
            for count, sample in enumerate(samples, start=1):
                self.errors += sample.errors
                self.warnings += sample.warnings
                self.counts += sample.counts
                self.digests |= sample.digests
                late = time.monotonic() - last >= REPORT_INTERVAL
                if late and not console.is_terminal:
                    last = time.monotonic()
                    done = f'{split}: {count} of {total} images'
                    console.print(f'{done}, {len(self.errors)} errors')
        self._check_counts()

    def find_overlap(self, training: Check) -> None:
        """Find images that the training data have too, by their pixels."""
        for digest in training.digests.keys() & self.digests.keys():
            first = training.digests[digest]
            fault = f'is in the training data too, as {first}; remove one'
            self.add(fault, file=self.digests[digest])

    def _load(self, dataset: Any, cfg: Config) -> None:
        if hasattr(dataset, 'COCOAPI'):
            self._check_coco(dataset.ann_file, dataset.metainfo['classes'])
        dataset.serialize_data = False  # fails if there are no images
        dataset.full_init()
        self.dataset = dataset
        self.classes = tuple(dataset.metainfo.get('classes') or ())
        self.labels = read_labels(cfg, dataset)
        ends = set(find_values(cfg.get('model'), 'num_classes'))
        if getattr(dataset, 'return_classes', False):  # open vocabulary
            ends.clear()
        if len(dataset) == 0:
            self.add('has no images; check data_prefix, suffix and filter_cfg')
        if ends and self.classes and len(self.classes) not in ends:
            self.add(
                f'has {len(self.classes)} classes, but num_classes of the '
                f'model is {", ".join(map(str, sorted(ends)))}'
            )
        folders = tuple(getattr(dataset, 'folder_to_idx', ()))
        if folders != self.classes and {*folders} == {*self.classes}:
            self.add(
                f'has the folders {folders}, but the classes are '
                f'{self.classes}; put them in the same order'
            )
        if hasattr(dataset, 'seg_map_suffix') and not dataset.ann_file:
            self._check_maps(dataset, dataset.data_prefix['seg_map_path'])
        for step in dataset.pipeline.transforms:
            reduce = getattr(step, 'reduce_zero_label', None)
            if reduce not in (None, getattr(dataset, 'reduce_zero_label', 0)):
                self.add(
                    f'does not have the reduce_zero_label={reduce} of its '
                    'LoadAnnotations; set it in the data set only'
                )

    def _check_maps(self, dataset: Any, folder: str) -> None:
        """Find label maps without an image; mmseg lists images only."""
        used = {x['seg_map_path'] for x in dataset.load_data_list()}
        for name in fileio.list_dir_or_file(
            folder,
            list_dir=False,
            suffix=dataset.seg_map_suffix,
            recursive=True,
            backend_args=dataset.backend_args,
        ):
            file = os.path.join(folder, name)
            if file not in used:
                self.add('has no image; add it or remove the map', False, file)

    def _check_coco(self, file: str, classes: tuple[str, ...]) -> None:
        content = json.loads(fileio.get_text(file))
        names = {x['id']: x['name'] for x in content['categories']}
        images = {x['id']: x for x in content['images']}
        known = [name for name in names.values() if name in classes]
        missing = [name for name in classes if name not in known]
        if missing:
            self.add(
                f'has no category {", ".join(missing)}, but '
                f'{", ".join(names.values())}; set metainfo.classes'
            )
        elif known != list(classes):
            self.add(
                f'has the categories in the order {", ".join(known)}; put '
                'metainfo.classes in this order'
            )
        annotations = content.get('annotations') or []
        if not annotations:
            self.add('has no annotations')
        for annotation in annotations:
            if 'segments_info' not in annotation:  # not panoptic
                self._check_annotation(annotation, images, names)

    def _check_annotation(
        self, annotation: dict, images: dict, names: dict
    ) -> None:
        """Check an annotation, given images and category names by id."""
        is_error, image = True, None
        try:
            image = images.get(annotation['image_id'])
            category = annotation['category_id']
            x, y, width, height = box = annotation['bbox']
            area = annotation['area']
            if image is None:
                fault = f'unknown image_id {annotation["image_id"]}'
            elif category not in names:
                fault = f'unknown category_id {category}; correct it'
            elif not np.isfinite([*box, area]).all():
                fault = f'bbox {box} and area {area}: NaN or inf'
            elif (
                not (x < image['width'] and y < image['height'])
                or x + width <= 0
                or y + height <= 0
            ):
                fault = f'bbox {box} outside of the image'
            elif min(width, height) < 1 or area <= 0:
                is_error = False
                fault = f'bbox {box} and area {area}, so mmdet leaves it out'
            else:
                return
        except KeyError as error:
            fault = f'no {error}'
        except (TypeError, ValueError) as error:
            fault = f'unreadable values ({error})'
        of = '' if image is None else f' of image {image.get("file_name")}'
        number = annotation.get('id')
        self.add(f'annotation {number}{of} has {fault}', is_error)

    def _check_counts(self) -> None:
        found = {label for what, label in self.counts if what == 'images'}
        absent = [x for i, x in enumerate(self.classes) if i not in found]
        if absent:
            self.add(f'has no sample of class {", ".join(absent)}', False)
        raw = {label for what, label in self.counts if what == 'raw'}
        last = len(self.classes)
        if (
            getattr(self.dataset, 'reduce_zero_label', False)
            and {0, last - 1} <= raw
            and last not in raw
        ):
            self.add(
                f'has labels from 0 to {last - 1} for {last} classes, and '
                'reduce_zero_label=True ignores label 0; set it to False'
            )


def find_datasets(node: Any) -> Iterator[Any]:
    """Find the data sets inside of wrappers, configs or built ones."""
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from find_datasets(child)
    elif node is not None:
        fields = node if isinstance(node, dict) else vars(node)
        inner = [fields[x] for x in ('dataset', 'datasets') if x in fields]
        yield from find_datasets(inner) if inner else [node]


def find_values(config: Any, name: str) -> list[int]:
    """List the integers with a name in a nested config."""
    values = (node.get(name) for _, node in nested_dicts(config))
    return [value for value in values if isinstance(value, int)]


def read_labels(cfg: Config, dataset: Any) -> Labels:
    """The labels of a data set that the model of a config accepts."""
    classes = dataset.metainfo.get('classes')
    ends = find_values(cfg.get('model'), 'num_classes')
    end = len(classes) if classes else max(ends, default=None)
    ignored = {255, *find_values(cfg.get('model'), 'ignore_index')}
    return Labels(end, frozenset(ignored))
