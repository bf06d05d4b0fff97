"""Report the faults of data sets: all at once, or when a training meets one.

``tools/check_dataset.py`` finds all of them.
"""

import sys
import time
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmattn.cli.progress import format_time
from mmattn.datasets.checking import (
    DatasetCheck,
    find_datasets,
    find_overlap,
    read_labels,
)
from mmattn.datasets.sample_check import (
    Finding,
    Labels,
    SampleCheck,
    find_mask_fault,
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
    checks: list[tuple[str, DatasetCheck]] = []
    for split in splits:
        for node in find_datasets(cfg[f'{split}_dataloader'].get('dataset')):
            check = DatasetCheck(node, cfg)
            if check.dataset is not None:
                show_progress(split, len(check.dataset), check, workers)
            for other, first in checks:
                if other == 'train' != split:
                    check.findings += find_overlap(first, check)
            checks.append((split, check))
            print(*check.findings, describe(split, check), sep='\n')
    return sum(x.is_error for _, check in checks for x in check.findings)


def show_progress(
    split: str, total: int, check: DatasetCheck, workers: int
) -> None:
    """Check all samples, with a line of progress every ten seconds."""
    start = told = time.monotonic()
    for done in check.check_samples(workers):
        now = time.monotonic()
        if now - told > 10:
            told = now
            left = format_time((now - start) * (total - done) / done)
            print(
                f'{split}: {done} of {total} images, {len(check.findings)} '
                f'findings, about {left} left',
                file=sys.stderr,
            )


def describe(split: str, check: DatasetCheck) -> str:
    """A table of the images, instances and pixels of each class."""
    counts = check.counts
    columns = [
        what
        for what in ('images', 'instances', 'pixels')
        if any(kind == what for kind, _ in counts)
    ]
    errors = sum(finding.is_error for finding in check.findings)
    lines = [
        f'{split}: {len(check.dataset or ())} images of {check.file}, '
        f'{errors} errors, {len(check.findings) - errors} warnings'
    ]
    if columns:
        width = max(map(len, (*check.classes, 'class')))
        names = (f'{what:>14}' for what in columns)
        lines.append(f'  {"class":<{width}}{"".join(names)}')
        for label, name in enumerate(check.classes):
            values = (f'{counts[what, label]:>14,}' for what in columns)
            lines.append(f'  {name:<{width}}{"".join(values)}')
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
        info, cause = dict(data), None
        if not self._has_wrong_masks(info):
            try:
                prepared = super().__call__(data)
            except Exception as error:  # files can hold anything
                cause = error
            else:
                if not self._has_wrong_labels(prepared):
                    return prepared
        findings = SampleCheck(info, self.transforms, self.labels).findings
        findings.append(Finding(str(info.get('img_path')), repr(cause)))
        raise DataError(advise(findings, self.config)) from cause

    def _has_wrong_masks(self, info: dict) -> bool:
        size = (info.get('height'), info.get('width'))
        if None in size or not any(
            getattr(step, 'with_mask', False) for step in self.transforms
        ):
            return False
        masks = [x['mask'] for x in info.get('instances', ()) if 'mask' in x]
        return any(find_mask_fault(mask, size) for mask in masks)

    def _has_wrong_labels(self, prepared: Any) -> bool:
        if self.labels.end is None or not isinstance(prepared, dict):
            return False
        sample = prepared.get('data_samples')
        for name in ('gt_label', 'gt_sem_seg'):
            labels = getattr(sample, name, None)
            labels = getattr(labels, 'data', None)
            if isinstance(labels, torch.Tensor):
                has_colors = labels.ndim == 3 and len(labels) != 1
                return has_colors or bool(self.labels.find_wrong(labels))
        return False


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
                findings = DatasetCheck(node, cfg).findings
                if any(finding.is_error for finding in findings):
                    raise DataError(advise(findings, cfg.filename)) from error
            raise
        for dataset in find_datasets(loader.dataset):
            pipeline = getattr(dataset, 'pipeline', None)
            if type(pipeline) is Compose:
                pipeline.__class__ = CheckedPipeline
                pipeline.config = cfg.filename
                pipeline.labels = Labels(None)
                if is_training:
                    pipeline.labels = read_labels(cfg, dataset)
        return loader

    runner.build_dataloader = build_checked


def advise(findings: list[Finding], config: str) -> str:
    """Describe the first error and how to find the others."""
    finding = next(x for x in findings if x.is_error)
    return (
        f'{finding.file}: {finding.fault}. All faults of the data: '
        f'`python tools/check_dataset.py {config}`'
    )
