"""Report the faults of data sets: all at once, or when a training meets one.

``tools/check_dataset.py`` finds all of them.
"""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmattn.datasets.checking import DatasetCheck, find_datasets, read_labels
from mmattn.datasets.sample_check import (
    Check,
    Labels,
    SampleCheck,
    check_mask,
    loads_masks,
)
from mmattn.errors import DataError


def check_data(cfg: Config, splits: list[str], workers: int) -> int:
    """Check the data sets of a config and print what is found.

    Args:
        cfg: A config of mmdet, mmseg or mmpretrain.
        splits: Which of its data loaders: ``'train'``, ``'val'``, ``'test'``.
        workers: Number of threads.

    Returns:
        The number of errors.
    """
    errors, training = 0, []
    for split in splits:
        for node in find_datasets(cfg[f'{split}_dataloader'].get('dataset')):
            check = DatasetCheck(node, cfg)
            if check.dataset is not None:
                check.check_samples(split, workers)
            if split == 'train':
                training.append(check)
            else:
                for other in training:
                    check.find_overlap(other)
            print(describe(split, check))
            errors += len(check.errors)
    return errors


def describe(split: str, check: DatasetCheck) -> str:
    """The faults, and the images, instances and pixels of each class."""
    counts, errors, warnings = check.counts, check.errors, check.warnings
    lines = [
        *(f'error: {fault}' for fault in errors),
        *(f'warning: {fault}' for fault in warnings),
        f'{split}: {len(check.dataset or ())} images of {check.file}, '
        f'{len(errors)} errors, {len(warnings)} warnings',
    ]
    found = {what for what, _ in counts}
    columns = [x for x in ('images', 'instances', 'pixels') if x in found]
    if columns:
        rows = [('class', *columns)]
        for label, name in enumerate(check.classes):
            rows.append((name, *(f'{counts[x, label]:,}' for x in columns)))
        width = max(len(name) for name, *_ in rows)
        for name, *cells in rows:
            cells = (f'{cell:>14}' for cell in cells)
            lines.append(f'  {name:<{width}}{"".join(cells)}')
    return '\n'.join(lines)


class CheckedPipeline(Compose):
    """A pipeline that names the file of a sample that it cannot prepare.

    It takes the class of an existing pipeline, which keeps its state.
    """

    labels: Labels
    config: str

    def __call__(self, data: dict) -> dict | None:
        """Prepare a sample.

        Raises:
            DataError: If that fails, or if its labels are out of range.
        """
        info = dict(data)
        size = (info.get('height'), info.get('width'))
        try:
            if None not in size and loads_masks(self.transforms):
                for instance in info.get('instances', ()):
                    if 'mask' in instance:
                        check_mask(instance['mask'], size)
            prepared = super().__call__(data)
            self._check_labels(prepared)
            return prepared
        except Exception as error:  # files can hold anything
            check = SampleCheck(info, self.transforms, self.labels)
            check.add(f'cannot be prepared ({error!r})')
            raise make_error(check, self.config) from error

    def _check_labels(self, prepared: Any) -> None:
        if self.labels.end is None or not isinstance(prepared, dict):
            return
        sample = prepared.get('data_samples')
        for name in ('gt_label', 'gt_sem_seg'):
            labels = getattr(getattr(sample, name, None), 'data', None)
            if isinstance(labels, torch.Tensor):
                has_colors = labels.ndim == 3 and len(labels) != 1
                if has_colors or self.labels.find_wrong(labels):
                    raise ValueError(f'{name} is out of range')


def report_data_errors(runner: Runner) -> None:
    """Let a runner report the file at fault when its data are broken.

    Args:
        runner: A runner that has built no data loader.
    """
    build = runner.build_dataloader
    cfg = runner.cfg

    def build_checked(
        dataloader: Any, *args: Any, **kwargs: Any
    ) -> DataLoader:
        is_training = dataloader is runner._train_dataloader
        try:
            loader = build(dataloader, *args, **kwargs)
        except Exception as error:
            for node in find_datasets(dataloader['dataset']):
                check = DatasetCheck(node, cfg)
                if check.errors:
                    raise make_error(check, cfg.filename) from error
            raise
        for dataset in find_datasets(loader.dataset):
            pipeline = getattr(dataset, 'pipeline', None)
            if type(pipeline) is Compose:
                pipeline.__class__ = CheckedPipeline
                pipeline.config = cfg.filename
                pipeline.labels = (
                    read_labels(cfg, dataset) if is_training else Labels(None)
                )
        return loader

    runner.build_dataloader = build_checked


def make_error(check: Check, config: str) -> DataError:
    """Report the first error of a check, and how to find the others."""
    return DataError(
        f'{check.errors[0]}. All faults of the data: '
        f'`python tools/check_dataset.py {config}`'
    )
