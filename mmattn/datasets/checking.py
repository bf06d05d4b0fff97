"""Find the faults of the data sets of a config before a training starts."""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmattn.datasets.sample_check import Finding, Labels, SampleCheck


class DatasetCheck:
    """Check the annotation file and the classes of a data set.

    Args:
        node: Config of the data set.
        cfg: The config that it is part of.

    Attributes:
        findings: The faults, after ``check_samples`` those of all samples.
        counts: Of all samples, see ``SampleCheck``.
        digests: An image by the digest of its content.
    """

    def __init__(self, node: dict, cfg: Config) -> None:
        self.findings: list[Finding] = []
        self.counts: Counter[tuple[str, int]] = Counter()
        self.digests: dict[bytes, str] = {}
        self.dataset: Any = None
        dataset: Any = None
        self.classes: tuple[str, ...] = ()
        prefix = node.get('data_prefix') or ''
        if isinstance(prefix, dict):
            prefix = next(iter(prefix.values()), '')
        self.file = fileio.join_path(
            node.get('data_root') or '', node.get('ann_file') or prefix
        )
        try:
            with DefaultScope.overwrite_default_scope(
                cfg.get('default_scope')
            ):
                dataset = DATASETS.build(dict(node, lazy_init=True))
            # pycocotools prints what it does.
            with contextlib.redirect_stdout(io.StringIO()):
                self._load(dataset, cfg)
        except Exception as error:  # the files can hold anything
            if dataset is None and isinstance(error, (KeyError, TypeError)):
                raise  # a mistake in the config
            if not self.has_errors:
                kind = type(error).__name__
                self.add(f'cannot be loaded ({kind}: {error})')

    @property
    def has_errors(self) -> bool:
        """Whether a fault stops or spoils a training."""
        return any(finding.is_error for finding in self.findings)

    def add(self, fault: str, is_error: bool = True) -> None:
        """Add a finding about the data set as a whole."""
        self.findings.append(Finding(self.file, fault, is_error))

    def check_samples(self, workers: int) -> Iterator[int]:
        """Check each sample in threads; yields how many are done."""
        dataset = self.dataset
        steps = dataset.pipeline.transforms

        def check(index: int) -> SampleCheck:
            info = dataset.get_data_info(index)
            return SampleCheck(info, steps, self.labels)

        with ThreadPool(workers) as pool:
            for done, sample in enumerate(
                pool.imap(check, range(len(dataset)), 8), start=1
            ):
                self.findings += sample.findings
                self.counts += sample.counts
                if sample.digest:
                    self.digests[sample.digest] = sample.file
                yield done
        self._check_counts()

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
                f'numbers its folders {folders}, but the classes are '
                f'{self.classes}; put them in the same order'
            )
        for step in dataset.pipeline.transforms:
            reduce = getattr(step, 'reduce_zero_label', None)
            if reduce not in (None, getattr(dataset, 'reduce_zero_label', 0)):
                self.add(
                    f'has another reduce_zero_label than the {reduce} of its '
                    'LoadAnnotations; set it in the data set alone'
                )

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
                f'numbers the categories {", ".join(known)}; put '
                'metainfo.classes in this order'
            )
        if not content.get('annotations'):
            self.add('has no annotations')
        for annotation in content.get('annotations') or ():
            fault = check_annotation(annotation, images, names)
            if fault is not None:
                image = images.get(annotation.get('image_id'), {})
                name = image.get('file_name')
                self.add(
                    f'annotation {annotation.get("id")} of image {name} '
                    f'{fault[0]}',
                    fault[1],
                )

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


def check_annotation(
    annotation: dict, images: dict, names: dict
) -> tuple[str, bool] | None:
    """Check an annotation of a COCO file.

    Args:
        annotation: The annotation.
        images: Images of the file by id.
        names: Names of the categories by id.

    Returns:
        A fault and whether it is an error, or None.
    """
    if 'segments_info' in annotation:  # panoptic
        return None
    try:
        image = images.get(annotation['image_id'])
        if image is None:
            return f'has unknown image_id {annotation["image_id"]}', True
        if annotation['category_id'] not in names:
            kind = annotation['category_id']
            return f'has unknown category_id {kind}; add the category', True
        x, y, width, height = box = annotation['bbox']
        area = annotation['area']
        if not np.isfinite([*box, area]).all():
            return f'has bbox {box} and area {area}: NaN or inf', True
        inside = x < image['width'] and y < image['height']
        if not inside or x + width <= 0 or y + height <= 0:
            return f'has bbox {box} outside of the image', True
        if min(width, height) < 1 or area <= 0:
            return f'has bbox {box} and area {area}: left out', False
    except KeyError as error:
        return f'has no {error}', True
    except (TypeError, ValueError) as error:
        return f'cannot be read ({error})', True
    return None


def find_overlap(first: DatasetCheck, second: DatasetCheck) -> list[Finding]:
    """Find images of one data set in another, by content."""
    both = first.digests.keys() & second.digests.keys()
    return [
        Finding(
            second.digests[x],
            f'is in the training data too, as {first.digests[x]}; remove one',
        )
        for x in both
    ]


def find_datasets(node: Any) -> Iterator[Any]:
    """Find the data sets inside of wrappers, configs or built ones."""
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from find_datasets(child)
    elif node is not None:
        fields = node if isinstance(node, dict) else vars(node)
        inner = [fields[x] for x in ('dataset', 'datasets') if x in fields]
        yield from find_datasets(inner) if inner else [node]


def find_values(node: Any, name: str) -> Iterator[int]:
    """Find the integers with a name in a nested config."""
    if isinstance(node, dict):
        if isinstance(node.get(name), int):
            yield node[name]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from find_values(child, name)


def read_labels(cfg: Config, dataset: Any) -> Labels:
    """The labels that the model of a config takes of a data set."""
    classes = dataset.metainfo.get('classes')
    ends = list(find_values(cfg.get('model'), 'num_classes'))
    end = len(classes) if classes else max(ends, default=None)
    ignored = {255, *find_values(cfg.get('model'), 'ignore_index')}
    return Labels(end, frozenset(ignored))
