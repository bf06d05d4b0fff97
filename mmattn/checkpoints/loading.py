"""Read the tensors of a checkpoint without running what the file says."""

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

from .stand_ins import is_lacking, stand_ins

# Where the tensors of a training file are; the first that is there counts.
# An averaged copy comes before the plain one: published accuracies are its.
_WRAPPERS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
# Left by DistributedDataParallel and by torch.compile on every key.
_ARTEFACTS = ('module.', '_orig_mod.')


def load_file(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a checkpoint's tensors by name, on the CPU.

    Reads what ``torch.save`` wrote (.pth, .pt, .tar, ...) with
    ``weights_only=True`` and nothing else, and .safetensors. A training
    file is unwrapped (``state_dict_ema``, ``model_ema``, ``state_dict``,
    ``model``, in this order; an averaged copy goes before the plain one) and
    the rest of it is dropped unread, see :mod:`.stand_ins`. ``module.``
    and ``_orig_mod.`` are stripped where every name has them; a prefix that
    says which part of a model it is (``backbone.``, ``encoder.``) stays, for
    :func:`.convert` to judge.

    Args:
        path: A file, or an http(s) address, whose file is kept in
            ``torch.hub``'s checkpoint folder and downloaded once, or
            ``mmattn://NAME`` for the weights of a model of the zoo.

    Returns:
        At least one tensor; what is no tensor is left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ConnectionError: If a download fails.
        ValueError: If the file is empty, cut short, no checkpoint, has no
            tensors, needs to run code to be read, or is not the one whose
            digest its name tells.
        ImportError: If a .safetensors file meets no safetensors package.
    """
    path = _find_file(path)
    safe = path.suffix == '.safetensors'
    state = _read_safetensors(path) if safe else _read_pickled(path)
    return _strip_artefacts(_tensors(path, state))


def load_published(name: str, map_location: Any = None) -> dict:
    """Read the whole file of a published model, safely.

    Args:
        name: Of the model, or ``mmattn://NAME``.
        map_location: As in ``torch.load``. Defaults to None: as saved.

    Returns:
        What the file holds: ``state_dict`` and ``meta``.

    Raises:
        ValueError: If no zoo has the model, or as :func:`load_file` does.
    """
    path = _find_file(find_weights(name))
    return _read_pickled(path, map_location)


def read_whole(path: str | os.PathLike) -> Any:
    """Read all of a checkpoint that is safe to read, on the CPU.

    What is neither a tensor nor a plain value is an inert stand-in.

    Args:
        path: As in :func:`load_file`.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: As there.
    """
    return _read_pickled(_find_file(path))


def _find_file(path: str | os.PathLike) -> Path:
    """The file on this machine; one that says what it is is checked."""
    if str(path).startswith(SCHEME):
        path = find_weights(str(path))
    if str(path).startswith(('http://', 'https://')):
        path = _download(str(path))
    path = Path(path).expanduser()
    if not path.is_file():
        what = 'is a folder' if path.is_dir() else 'does not exist'
        raise FileNotFoundError(
            f'load_file expects a checkpoint file, got {path}, which {what}; '
            'check the path, or download the published weights first (an '
            'http(s) address works too)'
        )
    if path.stat().st_size == 0:
        _refuse(path, 'is empty', 'download or copy it again')
    if path.parent != _download_folder():  # names there are of other making
        check_digest(path)
    return path


def _download(url: str) -> Path:
    name = Path(urlparse(url).path)
    # Many addresses end in one name (model.safetensors, checkpoint.pth).
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    kept = f'{name.stem}-{digest}{name.suffix}'
    target = _download_folder() / kept
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Written beside the target and moved, so that processes that
            # start together never read half a file.
            torch.hub.download_url_to_file(url, str(target), progress=False)
        except OSError as error:
            raise ConnectionError(
                f'load_file expects an address to download from, got {url}, '
                f'which answers: {error}; check the address and the network, '
                'or download the file by other means and give its path'
            ) from error
    try:
        check_digest(target, name.name)
    except ValueError:
        target.unlink()  # so that it can be got again
        raise
    return target


def _download_folder() -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints'


def _refuse(path: Path, what: str, advice: str) -> None:
    raise ValueError(
        f'load_file expects a checkpoint of tensors, got {path}, '
        f'which {what}; {advice}'
    )


def _read_pickled(path: Path, map_location: Any = 'cpu') -> Any:
    with path.open('rb') as file:
        head = file.read(64)
    if head.startswith(b'PK\x03\x04'):
        _check_archive(path)
    elif _is_text(head):
        _refuse(
            path,
            f'is a text that begins with {head[:24].decode()!r}',
            'a download page or a pointer of git-lfs may have been saved in '
            'place of the file: download the file itself',
        )
    try:
        with stand_ins(), warnings.catch_warnings():
            # Said of another pickle protocol, just before it succeeds or
            # fails for good.
            warnings.filterwarnings('ignore', 'Detected pickle protocol')
            return torch.load(
                path, map_location=map_location, weights_only=True
            )
    except Exception as error:  # what a broken pickle raises has no base
        _explain(path, error)


def _is_text(head: bytes) -> bool:
    # A pickle begins with bytes that no text has (protocol 2 and later), or
    # with a torch storage; both hold control characters early on.
    printable = set(range(0x20, 0x7F)) | set(b'\t\r\n')
    return set(head) <= printable


def _check_archive(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        _refuse(
            path,
            'is cut short or damaged (a zip archive without its end)',
            'download or copy it again',
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith('/constants.pkl') for name in names):
        _refuse(
            path,
            'is a TorchScript program',
            'save the weights alone, '
            "torch.save(model.state_dict(), 'weights.pth')",
        )
    if not any(name.endswith('/data.pkl') for name in names):
        _refuse(
            path,
            'is a zip archive that torch.save did not write',
            'unpack it if it holds a checkpoint',
        )


def _explain(path: Path, error: Exception) -> None:
    text = str(error)
    # Since torch 2.5 'GLOBAL name', before 'Unsupported class name'.
    wanted = re.search(r'(?:GLOBAL|Unsupported class) (\S+)', text)
    if wanted and is_lacking(wanted[1]):
        raise ValueError(
            f'load_file expects a checkpoint of tensors alone, got {path}, '
            f'which holds {wanted[1]} too, and torch {torch.__version__}, '
            'which cannot leave that out; use torch 2.5 or newer, or save '
            'the weights alone where the file comes from, '
            "torch.save(model.state_dict(), 'weights.pth')"
        ) from error
    if wanted:
        what = f'asks to use {wanted[1]} while it is read'
    elif re.search('reduce for|create new object|Can only', text):
        what = 'asks to call something that is no tensor while it is read'
    else:
        said = re.search(r'Unpickler error:\s+(.+)', text) or re.search(
            r'(.+)', text
        )
        reason = said[1] if said else type(error).__name__
        raise ValueError(
            'load_file expects a checkpoint of tensors, got '
            f'{path}, which is cut short, damaged or no checkpoint '
            f'({reason[:200]}); download or copy it again'
        ) from error
    raise ValueError(
        f'load_file expects a checkpoint of tensors, got {path}, which '
        f'{what}: such a file can run any code, so nothing of it was loaded; '
        'if you trust who made it, save its weights alone where it comes '
        "from, torch.save(model.state_dict(), 'weights.pth')"
    ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file as read
    except ImportError as error:
        raise ImportError(
            f'load_file expects the package safetensors to read {path}, got '
            'an environment without it; pip install safetensors'
        ) from error
    try:
        return read(str(path))
    except Exception as error:  # SafetensorError is not public
        raise ValueError(
            f'load_file expects a checkpoint of tensors, got {path}, which is '
            f'cut short, damaged or no safetensors file ({error}); download '
            'or copy it again'
        ) from error


def _tensors(path: Path, state: object) -> dict[str, Tensor]:
    while isinstance(state, dict):
        inner = next(
            (
                state[name]
                for name in _WRAPPERS
                if isinstance(state.get(name), dict)
            ),
            None,
        )
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict):
        _refuse(
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
        _refuse(
            path,
            f'holds no tensors (its entries: {names})',
            'give the file that the weights were saved in',
        )
    return tensors


def _strip_artefacts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    def shared(prefix: str) -> bool:
        return all(name.startswith(prefix) for name in state)

    found = next(filter(shared, _ARTEFACTS), None)
    while found:
        state = {name[len(found) :]: value for name, value in state.items()}
        found = next(filter(shared, _ARTEFACTS), None)
    return state
