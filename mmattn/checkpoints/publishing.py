"""From a training file to files that anyone can load by name, safely."""

import os
from collections.abc import Mapping
from pathlib import Path
from time import mktime, strptime
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmattn.zoo import file_digest

from .loading import read_whole
from .saving import save_file

_PLAIN = (str, int, float, bool, type(None))
_TIME = '%Y%m%d_%H%M%S'


class Trained(NamedTuple):
    """What a training file says.

    Args:
        state_dict: The weights to publish.
        meta: Plain values that go with them: the classes
            (``dataset_meta``), ``epoch``, ``iter``.
        seed: Of the training; None where it is not told.
        seconds: Wall clock from the start of the training (of its last part,
            where it was resumed) to the file; None where it is not told.
        as_tested: Whether testing the training file tests these weights.
    """

    state_dict: dict[str, Tensor]
    meta: dict[str, Any]
    seed: int | None
    seconds: float | None
    as_tested: bool


class Files(NamedTuple):
    """Published weights."""

    pth: Path
    safetensors: Path


def read_training(path: str | os.PathLike, averaged: bool = False) -> Trained:
    """Read what is worth publishing from a file of mmengine's Runner.

    Args:
        path: The file.
        averaged: Take the averaged weights (EMA), not those that the
            optimizer left. Defaults to False.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, is of something else, or has
            no averaged weights.
    """
    checkpoint = read_whole(path)
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(
            f'read_training expects a checkpoint of a Runner, got {path}, '
            'which has no state_dict; give a file that training wrote'
        )
    meta = checkpoint.get('meta') or {}
    kept = ('dataset_meta', 'epoch', 'iter')
    return Trained(
        _pick(checkpoint, path, averaged),
        {k: meta[k] for k in kept if k in meta and _is_plain(meta[k])},
        meta.get('seed'),
        _seconds(meta),
        averaged or 'ema_state_dict' not in checkpoint,
    )


def write_published(
    trained: Trained, folder: Path, name: str, config: str
) -> Files:
    """Write the weights, each file named with the digest of its content.

    The .pth holds ``state_dict`` and ``meta``, as the inferencers of the
    hosts want it; the .safetensors the tensors alone.

    Args:
        trained: What to write.
        folder: Where, without files of this name.
        name: Of the model.
        config: Text of the config, which makes the .pth complete.
    """
    plain = folder / f'{name}.safetensors'
    save_file(trained.state_dict, plain)
    whole = folder / f'{name}.pth'
    state = {
        key: value.detach().cpu().clone()  # a view drags its storage along
        for key, value in trained.state_dict.items()
    }
    torch.save(
        dict(state_dict=state, meta=dict(trained.meta, cfg=config)), whole
    )
    return Files(_seal(whole), _seal(plain))


def _pick(
    checkpoint: dict, path: str | os.PathLike, averaged: bool
) -> dict[str, Tensor]:
    # mmengine's EMAHook swaps the two when it saves: `state_dict` is the
    # averaged copy, and the plain weights are where the copy would be.
    plain = checkpoint.get('ema_state_dict')
    if averaged and plain is None:
        raise ValueError(
            f'read_training expects averaged weights (EMA), got {path}, '
            'which has none; leave --ema away, or train with an EMAHook'
        )
    state = dict(checkpoint['state_dict'])
    if plain is not None and not averaged:
        state |= {
            key.removeprefix('module.'): value
            for key, value in plain.items()
            if key.startswith('module.')
        }
    return {k: v for k, v in state.items() if isinstance(v, Tensor)}


def _is_plain(value: object) -> bool:
    """Whether any reader takes it without running code."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value)) and all(
            map(_is_plain, value.values())
        )
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return type(value) in _PLAIN


def _seconds(meta: dict) -> float | None:
    # The name of a run ends with the time of its start.
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
