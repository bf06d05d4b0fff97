"""Turn a training checkpoint into files that are safe to share."""

import os
from collections.abc import Mapping
from pathlib import Path
from time import mktime, strptime
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmattn.zoo import file_digest

from .loading import is_finite, read_whole
from .naming import count_names
from .saving import save_file

_PLAIN = (str, int, float, bool, type(None))
_TIME = '%Y%m%d_%H%M%S'


class Trained(NamedTuple):
    """Content of a training checkpoint.

    Args:
        state_dict: The weights to publish.
        meta: Plain values to publish: ``dataset_meta``, ``epoch``, ``iter``.
        seed: Seed of the training, or None.
        seconds: Wall-clock time from the start of the training (or of the
            last resume) to the checkpoint, or None.
        as_tested: Whether testing the checkpoint tests these weights.
    """

    state_dict: dict[str, Tensor]
    meta: dict[str, Any]
    seed: int | None
    seconds: float | None
    as_tested: bool


class Files(NamedTuple):
    """Files of a published model."""

    config: Path
    pth: Path
    safetensors: Path


def read_training(path: str | os.PathLike, averaged: bool = False) -> Trained:
    """Read a checkpoint of mmengine's Runner for publishing.

    Args:
        path: The checkpoint.
        averaged: Take the averaged (EMA) weights. Defaults to False.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read safely, was not written by a Runner,
            has no averaged weights, or has NaN or infinite weights.
    """
    checkpoint = read_whole(path)
    if not isinstance(checkpoint.get('state_dict'), dict):
        raise ValueError(
            f'checkpoint {path} has no state_dict; give a checkpoint '
            'that training wrote'
        )
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    kept = ('dataset_meta', 'epoch', 'iter')
    weights = _pick(checkpoint, path, averaged)
    wrong = [name for name, value in weights.items() if not is_finite(value)]
    if wrong:
        raise ValueError(
            f'{path} has NaN or infinite values in {count_names(wrong)}; '
            'publish an earlier checkpoint'
        )
    return Trained(
        weights,
        {k: meta[k] for k in kept if k in meta and _is_plain(meta[k])},
        meta['seed'] if type(meta.get('seed')) is int else None,
        _seconds(meta),
        averaged or 'ema_state_dict' not in checkpoint,
    )


def write_published(
    trained: Trained, folder: Path, name: str, config: str
) -> Files:
    """Write config and weights, with digests of the content in the names.

    The .pth holds ``state_dict`` and ``meta``, as the codebases' inferencers
    expect, the .safetensors only the tensors.

    Args:
        trained: Result of :func:`read_training`.
        folder: An existing folder.
        name: Name of the model.
        config: Text of the config, also stored in the .pth.
    """
    readable = folder / f'{name}.py'
    readable.write_text(config, encoding='utf-8')
    plain = folder / f'{name}.safetensors'
    save_file(trained.state_dict, plain)
    whole = folder / f'{name}.pth'
    state = {
        key: value.detach().cpu().clone()  # saving a view saves its storage
        for key, value in trained.state_dict.items()
    }
    torch.save(
        dict(state_dict=state, meta=dict(trained.meta, cfg=config)), whole
    )
    return Files(*map(_seal, (readable, whole, plain)))


def _pick(
    checkpoint: dict, path: str | os.PathLike, averaged: bool
) -> dict[str, Tensor]:
    # mmengine's EMAHook swaps the two when saving: `state_dict` holds the
    # averaged weights and `ema_state_dict` those of the optimizer.
    plain = checkpoint.get('ema_state_dict')
    plain = plain if isinstance(plain, dict) else None
    if averaged and plain is None:
        raise ValueError(
            f'checkpoint {path} has no averaged weights (EMA); omit --ema, '
            'or train with an EMAHook'
        )
    state = dict(checkpoint['state_dict'])
    if plain is not None and not averaged:
        state |= {
            key.removeprefix('module.'): value
            for key, value in plain.items()
            if str(key).startswith('module.')
        }
    return {
        key: value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def _is_plain(value: object) -> bool:
    """Whether a value can be unpickled without running code."""
    if isinstance(value, Mapping):
        value = (*value, *value.values())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return type(value) in _PLAIN


def _seconds(meta: dict) -> float | None:
    # The name of a run ends with its start time.
    start = '_'.join(str(meta.get('experiment_name')).split('_')[-2:])
    try:
        started, saved = (
            mktime(strptime(text, _TIME)) for text in (start, meta.get('time'))
        )
    except (TypeError, ValueError):
        return None
    return saved - started


def _seal(path: Path) -> Path:
    return path.rename(
        path.with_name(f'{path.stem}-{file_digest(path)}{path.suffix}')
    )
