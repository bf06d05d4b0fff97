"""Read the tensors of a checkpoint without executing code from it."""

import hashlib
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from mmattn.zoo import SCHEME, check_digest, find_weights

from .stubs import allow_stubs, needs_newer_torch

# Keys of the tensors in a training checkpoint; the first that exists counts.
# Averaged weights come first: published accuracies are measured with them.
_STATE_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
# Added to every key by DistributedDataParallel and torch.compile.
_WRAPPER_PREFIXES = ('module.', '_orig_mod.')
_SAVE = "torch.save(model.state_dict(), 'weights.pth')"


def load_file(path: str | os.PathLike) -> dict[str, Tensor]:
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

    Returns:
        At least one tensor; other values are left out.

    Raises:
        FileNotFoundError: If the file does not exist.
        ConnectionError: If the download fails.
        ValueError: If the file is empty, truncated, not a checkpoint, holds
            no tensors, would have to run code, or does not match the digest
            in its name.
        ImportError: If safetensors is not installed and needed.
    """
    path = _find_file(path)
    is_safetensors = path.suffix == '.safetensors'
    state = _read_safetensors(path) if is_safetensors else _read_pickle(path)
    return _strip_wrapper_prefixes(_tensors(path, state))


def load_published(name: str, map_location: Any = None) -> dict:
    """Read the checkpoint of a published model: ``state_dict`` and ``meta``.

    Args:
        name: Name of the model, with or without ``mmattn://``.
        map_location: As in ``torch.load``. Defaults to None.

    Raises:
        ValueError: If no zoo has the model, or the file cannot be read.
    """
    path = _find_file(find_weights(name))
    return _read_pickle(path, map_location)


def read_whole(path: str | os.PathLike) -> Any:
    """Read everything in a checkpoint that is safe to read, on the CPU.

    Objects other than tensors and plain values become inert stubs. Arguments
    and errors are those of :func:`load_file`.
    """
    return _read_pickle(_find_file(path))


def _find_file(path: str | os.PathLike) -> Path:
    """Resolve a name or address to a local file and check its digest."""
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
        _fail(path, 'is empty', 'download or copy it again')
    if path.parent != _download_folder():  # names include other digests
        check_digest(path)
    return path


def _download(url: str) -> Path:
    name = Path(urlparse(url).path)
    # Many addresses end in the same name (model.safetensors).
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    kept = f'{name.stem}-{digest}{name.suffix}'
    target = _download_folder() / kept
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


def _fail(path: Path, what: str, advice: str) -> None:
    raise ValueError(f'checkpoint {path} {what}; {advice}')


def _read_pickle(path: Path, map_location: Any = 'cpu') -> Any:
    with path.open('rb') as file:
        head = file.read(64)
    if head.startswith(b'PK\x03\x04'):
        _check_archive(path)
    elif _is_text(head):
        _fail(
            path,
            f'is a text file that starts with {head[:24].decode()!r}',
            'it may be a download page or a git-lfs pointer: download the '
            'file itself',
        )
    try:
        with allow_stubs(), warnings.catch_warnings():
            # Warned about other pickle protocols, whether or not they load.
            warnings.filterwarnings('ignore', 'Detected pickle protocol')
            return torch.load(
                path, map_location=map_location, weights_only=True
            )
    except Exception as error:  # broken pickles raise anything
        _explain(path, error)


def _is_text(head: bytes) -> bool:
    # Pickles (protocol 2 and later) and torch storages have control
    # characters near the start.
    printable = set(range(0x20, 0x7F)) | set(b'\t\r\n')
    return set(head) <= printable


def _check_archive(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        _fail(
            path,
            'is truncated or damaged (the zip archive has no end)',
            'download or copy it again',
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith('/constants.pkl') for name in names):
        _fail(
            path,
            'is a TorchScript program',
            f'save only the weights: {_SAVE}',
        )
    if not any(name.endswith('/data.pkl') for name in names):
        _fail(
            path,
            'is a zip archive that torch.save did not write',
            'extract it if it contains a checkpoint',
        )


def _explain(path: Path, error: Exception) -> None:
    text = str(error)
    # Since torch 2.5 'GLOBAL name', before 'Unsupported class name'.
    wanted = re.search(r'(?:GLOBAL|Unsupported class) (\S+)', text)
    if wanted and needs_newer_torch(wanted[1]):
        raise ValueError(
            f'checkpoint {path} also contains {wanted[1]}, which torch '
            f'{torch.__version__} cannot skip; use torch 2.5 or newer, or '
            f'save only the weights: {_SAVE}'
        ) from error
    if wanted:
        what = f'use {wanted[1]}'
    elif re.search('reduce for|create new object|Can only', text):
        what = 'call something other than a tensor constructor'
    else:
        reason = re.search(r'Unpickler error:\s+(.+)', text) or re.search(
            r'(.+)', text
        )
        reason = reason[1] if reason else type(error).__name__
        raise ValueError(
            f'checkpoint {path} is truncated, damaged or not a checkpoint '
            f'({reason[:200]}); download or copy it again'
        ) from error
    raise ValueError(
        f'checkpoint {path} asks to {what} while it is read and could run '
        'any code, so it was not loaded; if you trust it, save only its '
        f'weights where it comes from: {_SAVE}'
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
        raise ValueError(
            f'checkpoint {path} is truncated, damaged or not a safetensors '
            f'file ({error}); download or copy it again'
        ) from error


def _tensors(path: Path, state: object) -> dict[str, Tensor]:
    while isinstance(state, dict):
        inner = next(
            (
                state[name]
                for name in _STATE_KEYS
                if isinstance(state.get(name), dict)
            ),
            None,
        )
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict):
        _fail(
            path,
            f'holds a {type(state).__name__}, not a dictionary of tensors',
            'save model.state_dict() instead',
        )
    tensors = {
        name: value.data
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        names = ', '.join(map(repr, list(state)[:5])) or 'nothing'
        _fail(
            path,
            f'holds no tensors (its entries: {names})',
            'give the file that holds the weights',
        )
    return tensors


def _strip_wrapper_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    def is_common(prefix: str) -> bool:
        return all(name.startswith(prefix) for name in state)

    while prefix := next(filter(is_common, _WRAPPER_PREFIXES), None):
        state = {key.removeprefix(prefix): x for key, x in state.items()}
    return state
