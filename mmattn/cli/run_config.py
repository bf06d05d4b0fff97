"""Turn command-line options into a config for the Runner.

The codebases name a few things differently. The differences are handled here,
so that one tool serves all of them.
"""

import inspect
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS
from mmengine.utils import digit_version

from mmattn import swapping
from mmattn.cli.resume import set_resume
from mmattn.cli.weights import verify_checkpoint
from mmattn.config import codebase_of, nested_dicts, type_name
from mmattn.datasets.checking import find_datasets
from mmattn.errors import UsageError
from mmattn.zoo import SCHEME, find_weights


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Set the output folder: command line, then config, then file name."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(cfg.filename).stem)


def enable_amp(cfg: Config) -> None:
    """Train in mixed precision: bfloat16 if the GPU supports it, else float16.

    Detectors use float16: RoIAlign and other operations of mmcv do not
    support bfloat16. The dtype and loss scale of the config take precedence.

    Raises:
        UsageError: Without a GPU, or if the config's optimizer wrapper is
            not the plain one.
    """
    if get_device() == 'cpu':
        raise UsageError(
            '--amp needs a GPU, but this machine has none; remove --amp'
        )
    wrapper = cfg.optim_wrapper
    kind = type_name(wrapper.get('type', 'OptimWrapper'))
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(
            '--amp needs an optim_wrapper of type OptimWrapper or '
            f'AmpOptimWrapper, got {kind}'
        )
    wrapper.type = 'AmpOptimWrapper'
    with_bf16 = (
        codebase_of(cfg) != 'mmdet'
        and torch.cuda.is_available()
        and torch.cuda.is_bf16_supported()
    )
    wrapper.setdefault('dtype', 'bfloat16' if with_bf16 else 'float16')
    wrapper.setdefault('loss_scale', 'dynamic')


def set_start(
    cfg: Config,
    resume: str | None,
    load_from: str | None,
    start_if_none: bool = False,
) -> None:
    """Set where a training starts from.

    Args:
        cfg: The config, changed in place.
        resume: ``'auto'`` for the newest checkpoint of the work folder, a
            checkpoint to continue, or None.
        load_from: A checkpoint whose weights start a new schedule, or None.
        start_if_none: With ``'auto'``, start a new training if there is no
            checkpoint.

    Raises:
        UsageError: If the options contradict one another, or if a
            checkpoint is missing or damaged.
    """
    if resume is not None and load_from is not None:
        raise UsageError(
            '--resume continues an interrupted training and --load-from '
            f'starts a new one, got both ({resume}, {load_from}); remove one'
        )
    if load_from is not None:
        cfg.resume = False
        cfg.load_from = load_from
    elif resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    if resume is not None:
        set_resume(cfg, resume, start_if_none)
    elif start_if_none:
        raise UsageError('--start-if-none needs --resume; add it')
    elif cfg.get('load_from'):
        cfg.load_from = checkpoint_file(cfg.load_from)


def checkpoint_file(path: str) -> str:
    """Return the path or URL of a checkpoint after checking it.

    Raises:
        UsageError: If the file is missing or damaged, if it does not match
            the digest in its name, or if a published model
            (``mmattn://NAME``) has no weights.
    """
    if '://' not in path:
        verify_checkpoint(path)
    elif path.startswith(SCHEME):
        try:
            weights = find_weights(path)
        except ValueError as error:
            raise UsageError(str(error)) from error
        checkpoint_file(weights)
    return path


def forbid_code_in_checkpoints() -> None:
    """Load checkpoints with ``weights_only=True``, if torch is 2.6 or newer.

    mmengine falls back to ``weights_only=False``. Older versions of torch
    cannot load mmengine's own files otherwise, so they only get a warning.
    """
    if digit_version(torch.__version__) < digit_version('2.6.0'):
        warnings.warn(
            f'with torch {torch.__version__} < 2.6 a checkpoint can execute '
            'code; load only files that you trust',
            stacklevel=2,
        )
        return
    os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    # Metrics are kept as numpy numbers, of more kinds than mmengine allows.
    kinds = set(np.dtypes.__all__) - {'ObjectDType'}
    torch.serialization.add_safe_globals(
        [getattr(np.dtypes, kind) for kind in sorted(kinds)]
    )


def check_channels(cfg: Config) -> None:
    """Check that neck and heads fit the mmattn backbone of a config.

    Raises:
        UsageError: If their ``in_channels`` are not its ``out_channels``.
    """
    try:
        swapping.check_channels(cfg.to_dict(), codebase_of(cfg))
    except swapping.ChannelMismatch as error:
        raise UsageError(f'{cfg.filename}: {error}') from error


def check_pretrained(cfg: Config) -> list[str]:
    """Check that the pretrained weights of a config exist.

    Returns:
        Their paths and URLs; none if the model starts from random weights.

    Raises:
        UsageError: If an ``init_cfg`` names a local file that is missing.
    """
    paths = []
    for name, node in nested_dicts(cfg.model, 'model'):
        is_pretrained = type_name(node.get('type')).startswith('Pretrained')
        if not is_pretrained or 'checkpoint' not in node:
            continue
        path = node['checkpoint']
        if '://' not in path and not os.path.exists(path):
            raise UsageError(
                f'{name} names the weights {path}, which do not exist; '
                'convert the published file with `python '
                f'tools/convert_checkpoint.py PUBLISHED {path}`, set another '
                f'file with `--cfg-options {name}.checkpoint=FILE`, or start '
                f'from random weights with `--cfg-options {name}=None`'
            )
        paths.append(path)
    return paths


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check that the folders of the data sets exist.

    Data sets that download themselves or lie in a remote storage are skipped.

    Raises:
        UsageError: If a ``data_root`` is a local folder that is missing.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for dataset in find_datasets(loader.get('dataset')):
            root = dataset.get('data_root')
            if not root or os.path.isdir(root) or _is_fetched(cfg, dataset):
                continue
            hint = (
                'make it with `python tools/make_digit_scenes.py`'
                if 'digit_scenes' in root
                else 'put the data set, or a link to it, there'
            )
            raise UsageError(
                f'{split}_dataloader expects the folder {root}, which does '
                f'not exist in {os.getcwd()}; {hint}'
            )


def check_length(cfg: Config) -> None:
    """Check that a training has at least one epoch or iteration.

    Raises:
        UsageError: If mmengine would end without training.
    """
    for name in ('max_epochs', 'max_iters'):
        length = cfg.train_cfg.get(name)
        if isinstance(length, int) and length < 1:
            raise UsageError(f'train_cfg.{name} must be >= 1, got {length}')


def fill_loaders(cfg: Config) -> None:
    """Add the data-loader defaults of mmpretrain's own tools."""
    if codebase_of(cfg) != 'mmpretrain':
        return
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        loader.setdefault('pin_memory', get_device() != 'cpu')
        loader.setdefault('collate_fn', dict(type='default_collate'))
        # torch rejects persistent workers if there are no workers.
        loader.setdefault(
            'persistent_workers', loader.get('num_workers', 0) > 0
        )


def _is_fetched(cfg: Config, dataset: dict) -> bool:
    if '://' in dataset['data_root'] or dataset.get('backend_args'):
        return True
    kind = dataset['type']
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(codebase_of(cfg)) as registry:
            kind = registry.get(kind)
    # An unknown type is the Runner's to report.
    return kind is None or 'download' in inspect.signature(kind).parameters
