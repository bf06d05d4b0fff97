"""Read the tensors of a checkpoint without executing code from it."""

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from mmattn.zoo import SCHEME, check_digest, find_weights

from .inspection import SAVE_WEIGHTS, InvalidCheckpoint, inspect_checkpoint
from .stubs import allow_stubs, is_allowed, needs_newer_torch

# Keys of the tensors in a training checkpoint; the first that exists counts.
# Averaged weights come first: published accuracies are measured with them.
_STATE_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
# Added to every key by DistributedDataParallel and torch.compile.
_WRAPPER_PREFIXES = re.compile(r'(module\.|_orig_mod\.)+')
_MAX_KEY = 500
_MAX_TENSORS = 100_000


def load_file(
    path: str | os.PathLike, allow_nonfinite: bool = False
) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint on the CPU.

    Files of ``torch.save`` (.pth, .pt, .tar, ...) are read with
    ``weights_only=True``, others have to be .safetensors. A training
    checkpoint is unwrapped: the first of ``state_dict_ema``, ``model_ema``,
    ``state_dict`` and ``model`` is taken and the rest dropped, see
    :mod:`.stubs`. ``module.`` and ``_orig_mod.`` are stripped from the keys
    if all have them. Prefixes of parts of a model (``backbone.``,
    ``encoder.``) stay; :func:`.convert` handles them.

    Args:
        path: A file, an http(s) address (downloaded once to ``torch.hub``'s
            checkpoint folder), or ``mmattn://NAME`` for the weights of a
            model of the zoo.
        allow_nonfinite: Accept NaN and infinite values. Defaults to False.

    Returns:
        At least one tensor; other values are left out.

    Raises:
        FileNotFoundError: If the file does not exist.
        ConnectionError: If the download fails.
        ValueError: If the file is empty, truncated, damaged, not a
            checkpoint, holds no tensors, would have to run code, does not
            match the digest in its name, or has NaN or infinite values.
        ImportError: If safetensors is not installed and needed.
    """
    path = find_file(path)
    try:
        if path.suffix == '.safetensors':
            content = _read_safetensors(path)
        else:
            content = _read_pickle(path)
        state = _strip_wrapper_prefixes(_tensors(content))
        if not allow_nonfinite:
            _check_finite(state)
    except InvalidCheckpoint as error:
        raise ValueError(f'checkpoint {path} {error}') from error
    return state


def load_published(name: str, map_location: Any = None) -> dict:
    """Read the checkpoint of a published model: ``state_dict`` and ``meta``.

    Args:
        name: Name of the model, with or without ``mmattn://``.
        map_location: As in ``torch.load``. Defaults to None.

    Raises:
        ValueError: If no zoo has the model, or the file cannot be read.
    """
    return read_whole(find_weights(name), map_location)


def read_whole(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Read everything in a checkpoint that is safe to read.

    Objects other than tensors and plain values become inert stubs. Arguments
    and errors are those of :func:`load_file`.
    """
    path = find_file(path)
    try:
        content = _read_pickle(path, map_location)
        _tensors(content)
    except InvalidCheckpoint as error:
        raise ValueError(f'checkpoint {path} {error}') from error
    return content


def find_file(path: str | os.PathLike) -> Path:
    """Resolve a name or address to a local file and check its digest.

    Arguments and errors are those of :func:`load_file`.
    """
    if str(path).startswith(SCHEME):
        path = find_weights(str(path))
    if str(path).startswith(('http://', 'https://')):
        path = _download(str(path))
    path = Path(path).expanduser()
    if not path.is_file():
        what = 'is a folder' if path.is_dir() else 'does not exist'
        raise FileNotFoundError(
            f'checkpoint {path} {what}; check the path, or give the http(s) '
            'address of the published weights'
        )
    if path.stat().st_size == 0:
        raise ValueError(f'checkpoint {path} is empty; copy it again')
    if path.parent != _download_folder():  # names include other digests
        check_digest(path)
    return path


def _download(url: str) -> Path:
    name = Path(urlparse(url).path)
    # Many addresses end in the same name (model.safetensors).
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    target = _download_folder() / f'{name.stem}-{digest}{name.suffix}'
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Writes a temporary file and renames it, so processes that start
            # together never read half a file.
            torch.hub.download_url_to_file(url, str(target), progress=False)
        except OSError as error:
            raise ConnectionError(
                f'could not download {url}: {error}; check the address and '
                'the network, or download it by other means and give the path'
            ) from error
    try:
        check_digest(target, name.name)
    except ValueError:
        target.unlink()  # the next call downloads it again
        raise
    return target


def _download_folder() -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints'


def _read_pickle(path: Path, map_location: Any = 'cpu') -> Any:
    for name in sorted(inspect_checkpoint(path).globals):
        if needs_newer_torch(name):
            raise InvalidCheckpoint(
                f'also contains {name}, which torch {torch.__version__} '
                'cannot skip',
                'use torch 2.5 or newer, or save only the weights: '
                f'{SAVE_WEIGHTS}',
            )
        if not is_allowed(name):
            raise InvalidCheckpoint(
                f'asks to use {name} while it is read and could run any '
                'code, so it was not loaded',
                'if you trust it, save only its weights where it comes from: '
                f'{SAVE_WEIGHTS}',
            )
    try:
        with allow_stubs(), warnings.catch_warnings():
            # Warned about other pickle protocols, whether or not they load.
            warnings.filterwarnings('ignore', 'Detected pickle protocol')
            return torch.load(
                path, map_location=map_location, weights_only=True
            )
    except Exception as error:  # damaged pickles raise anything
        raise InvalidCheckpoint(
            f'is damaged or not a checkpoint ({str(error)[:120]!r})'
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            f'reading {path} requires safetensors; run '
            '`pip install safetensors`'
        ) from error
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # SafetensorError is not public
        raise InvalidCheckpoint(
            'is truncated, damaged or not a safetensors file '
            f'({str(error)[:120]!r})'
        ) from error


def unwrap(state: Any) -> Any:
    """Return the state dict inside a training checkpoint."""
    while isinstance(state, dict):
        found = (x for x in map(state.get, _STATE_KEYS) if isinstance(x, dict))
        inner = next(found, None)
        if inner is None:
            break
        state = inner
    return state


def _tensors(state: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint, which has to be valid."""
    state = unwrap(state)
    if not isinstance(state, dict):
        raise InvalidCheckpoint(
            f'holds a {type(state).__name__}, not a dictionary of tensors',
            f'save the weights: {SAVE_WEIGHTS}',
        )
    tensors = {
        name: value.data
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        names = ', '.join(f'{str(x)[:40]!r}' for x in list(state)[:5])
        raise InvalidCheckpoint(
            f'holds no tensors (its keys: {names or "none"})',
            'give the file that holds the weights',
        )
    if len(tensors) > _MAX_TENSORS:
        raise InvalidCheckpoint(
            f'holds {len(tensors):,} tensors, more than {_MAX_TENSORS:,}',
            'save the weights of one model',
        )
    for name in tensors:
        _check_key(name)
    return tensors


def _check_key(name: str) -> None:
    numbers = re.findall(r'\d{5,}', name) if len(name) <= _MAX_KEY else ['']
    if numbers or not name.isprintable():
        raise InvalidCheckpoint(
            f'has a key of {len(name):,} characters that no model has: '
            f'{name[:60]!r}',
            'give the checkpoint of a model',
        )


def _check_finite(state: dict[str, Tensor]) -> None:
    names = [name for name, x in state.items() if not is_finite(x)]
    if names:
        raise InvalidCheckpoint(
            f'has NaN or infinite values in {len(names)} of {len(state)} '
            f'tensors, such as {names[0]}',
            'train again with a lower learning rate, or accept it with '
            'allow_nonfinite=True (--allow-nonfinite)',
        )


def is_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite; needs no further memory."""
    if x.is_complex():
        x = torch.view_as_real(x)
    if not x.is_floating_point() or x.numel() == 0:
        return True
    if x.element_size() == 1:  # float8 has no minimum
        x = x.to(torch.float32)
    return all(bound.isfinite() for bound in x.aminmax())


def _strip_wrapper_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    first = next(iter(state))
    if found := _WRAPPER_PREFIXES.match(first):
        prefix = os.path.commonprefix([found[0], *state])
        prefix = (_WRAPPER_PREFIXES.match(prefix) or [''])[0]
        state = {key.removeprefix(prefix): x for key, x in state.items()}
    return state
