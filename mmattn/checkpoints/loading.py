"""Read the tensors of a checkpoint without executing code from it."""

import hashlib
import os
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import unpack
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from mmattn.zoo import SCHEME, check_digest, find_weights

from .inspection import inspect_checkpoint
from .stubs import allow_stubs
from .unpickling import SAVE_WEIGHTS, InvalidCheckpoint

# Keys of the tensors in a training checkpoint; the first that exists counts.
# Averaged weights come first: published accuracies are measured with them.
_STATE_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
# Added to every key by DistributedDataParallel and torch.compile.
_WRAPPER_PREFIXES = re.compile(r'(module\.|_orig_mod\.)+')
# Dtypes that torch can compute with.
_DTYPES = re.compile(
    r'torch\.(bool|u?int(8|16|32|64)|b?float(16|32|64|8_\w+)'
    r'|complex(32|64|128))'
)
_MAX_KEY = 500
_PIECE = 1 << 22
_MAX_HEADER = 20 << 20  # bytes
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
    content = read_whole(path)
    with _named(path):
        state = _strip_wrapper_prefixes(tensors_of(content))
        names = [name for name, x in state.items() if not is_finite(x)]
        if names and not allow_nonfinite:
            raise InvalidCheckpoint(
                f'has NaN or infinite values in {len(names)} of {len(state)} '
                f'tensors, such as {names[0]}',
                'train again with a lower learning rate, or accept it with '
                'allow_nonfinite=True (--allow-nonfinite)',
            )
    return state


def read_whole(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Read everything in a checkpoint that is safe to read.

    Objects other than tensors and plain values become inert stubs. Arguments
    and errors are those of :func:`load_file`.
    """
    file = check_file(path)
    with _named(file):
        if file.suffix == '.safetensors':
            content = _read_safetensors(file)
        else:
            content = _read_pickle(file, map_location)
        tensors_of(content)  # which rejects dtypes that torch cannot use
    return content


def check_file(path: str | os.PathLike) -> Path:
    """Find a checkpoint and check all but the values of its tensors.

    Arguments and errors are those of :func:`load_file`.

    Returns:
        The local file.
    """
    file = find_file(path)
    with _named(file):
        if file.suffix == '.safetensors':
            _read_safetensors(file, only_names=True)
        else:
            tensors_of(inspect_checkpoint(file))
    return file


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
    try:
        with allow_stubs(), warnings.catch_warnings():
            # Warned about other pickle protocols, whether or not they load.
            warnings.filterwarnings('ignore', 'Detected pickle protocol')
            return torch.load(
                path, map_location=map_location, weights_only=True
            )
    except Exception as error:  # damaged pickles raise anything
        name = re.search(r'(?:GLOBAL|class) (\S+)', str(error))
        if name and not hasattr(torch.serialization, 'safe_globals'):
            raise InvalidCheckpoint(
                f'also contains {name[1]}, which torch {torch.__version__} '
                'cannot skip',
                f'use torch 2.5 or newer, or {SAVE_WEIGHTS}',
            ) from error
        raise InvalidCheckpoint(
            f'is damaged or not a checkpoint ({str(error)[:120]!r})'
        ) from error


def _read_safetensors(
    path: Path, only_names: bool = False
) -> dict[str, Tensor | None]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError(
            f'reading {path} requires safetensors; run '
            '`pip install safetensors`'
        ) from error
    try:
        with path.open('rb') as file:
            if unpack('<Q', file.read(8))[0] > _MAX_HEADER:
                raise InvalidCheckpoint('has too large a header')
        with safe_open(path, 'pt') as file:
            names = file.keys()
            _check_names(names)
            read = (lambda name: None) if only_names else file.get_tensor
            return {name: read(name) for name in names}
    except InvalidCheckpoint:
        raise
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


def tensors_of(content: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, at least one.

    Args:
        content: The checkpoint, or the result of :func:`.inspect_checkpoint`.

    Raises:
        InvalidCheckpoint: If no model has these tensors.
    """
    state = unwrap(content)
    if not isinstance(state, dict):
        raise InvalidCheckpoint(
            f'holds a {type(state).__name__}, not a dictionary of tensors',
            SAVE_WEIGHTS,
        )
    if not all(isinstance(name, str) for name in state):
        raise InvalidCheckpoint('has keys that are not names', SAVE_WEIGHTS)
    tensors = {
        name: value.data if isinstance(value, Tensor) else value
        for name, value in state.items()
        if isinstance(value, Tensor) or getattr(value, 'is_tensor', False)
    }
    if not tensors:
        names = ', '.join(f'{x[:40]!r}' for x in list(state)[:5])
        raise InvalidCheckpoint(
            f'holds no tensors (its keys: {names or "none"})',
            'give the file that holds the weights',
        )
    _check_names(tensors)
    for value in filter(torch.is_tensor, tensors.values()):
        if not _DTYPES.fullmatch(str(value.dtype)):
            raise InvalidCheckpoint(
                f'holds tensors of {value.dtype}', 'save them as float32'
            )
    return tensors


def _check_names(names: Collection[str]) -> None:
    if len(names) > _MAX_TENSORS:
        raise InvalidCheckpoint(
            f'holds {len(names):,} tensors, more than {_MAX_TENSORS:,}',
            'save the weights of one model',
        )
    for name in names:
        is_long = len(name) > _MAX_KEY
        if is_long or not name.isprintable() or re.search(r'\d{5}', name):
            raise InvalidCheckpoint(
                f'has a key of {len(name):,} characters that no model has: '
                f'{name[:60]!r}',
                'give the checkpoint of a model',
            )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the name of the file to errors."""
    try:
        yield
    except InvalidCheckpoint as error:
        raise ValueError(f'checkpoint {path} {error}') from error


def is_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite; needs no further memory."""
    if x.is_complex():
        x = torch.view_as_real(x)
    if not x.is_floating_point() or x.numel() == 0:
        return True
    # float8 has no minimum, on torch 2.1 float16 neither; pieces, since a
    # copy would need memory.
    return all(
        bound.isfinite()
        for part in x.flatten().split(_PIECE)
        for bound in (part if x.element_size() > 2 else part.float()).aminmax()
    )


def _strip_wrapper_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    first = next(iter(state))
    if found := _WRAPPER_PREFIXES.match(first):
        prefix = os.path.commonprefix([found[0], *state])
        prefix = (_WRAPPER_PREFIXES.match(prefix) or [''])[0]
        state = {key.removeprefix(prefix): x for key, x in state.items()}
    return state
