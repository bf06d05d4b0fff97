"""Check a file of ``torch.save`` before torch reads it.

``torch.load(weights_only=True)`` runs no code, but it trusts the sizes that a
file claims and ignores checksums. This module reads the same opcodes into
placeholders, so time and memory are bounded by the size of the file, and
compares every claim with what the file contains.
"""

import io
import math
import mmap
import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from pathlib import Path
from struct import unpack
from typing import Any, NamedTuple

import torch

from mmattn.errors import printable

from .stubs import MAPPINGS, is_allowed

# Far above real checkpoints; reading a million objects takes a second.
_MAX_OBJECTS = 1_000_000
_MAX_DEPTH = 500
_MAX_DIRECTORY = 8 << 20  # bytes of names and places in an archive
_CHUNK = 1 << 20
# Pickles (protocol 2 and later) and torch storages have control characters
# near the start.
_TEXT = set(range(0x20, 0x7F)) | set(b'\t\r\n')
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_REBUILD = 'torch._utils._rebuild_'
_TYPED = 'torch._tensor._rebuild_from_type_v2'
# Allowed as names only: calling these with sizes allocates memory.
_NOT_CALLED = ('torch.Tensor', 'numpy.ndarray')
_HASHING = ('builtins.set', 'collections.OrderedDict', 'collections.Counter')
_PLAIN = (str, int, float, bool, type(None))
# Of torch's storages; the others have items of one byte.
_ITEM_SIZES = dict(
    Double=8, Float=4, Half=2, BFloat16=2, Long=8, Int=4, Short=2
) | dict(ComplexDouble=16, ComplexFloat=8)
SAVE_WEIGHTS = (
    'save only its weights where it comes from: torch.save('
    "model.state_dict(), 'weights.pth')"
)


class InvalidCheckpoint(ValueError):
    """A file is not a valid checkpoint.

    Args:
        what: What is wrong, such as ``'is truncated'``.
        advice: What to do.
    """

    def __init__(
        self, what: str, advice: str = 'download or copy it again'
    ) -> None:
        self.what = printable(what)
        super().__init__(f'{self.what}; {advice}')
        self.advice = advice


class Global(str):
    """Placeholder of a class or function: its dotted name."""

    __slots__ = ()


class Storage(NamedTuple):
    """Placeholder of a storage of ``numel`` items."""

    kind: str
    key: str
    location: str
    numel: int

    @property
    def item_size(self) -> int:
        """Bytes of one item."""
        kind = self.kind.rpartition('.')[2].removesuffix('Storage')
        return _ITEM_SIZES.get(kind, 1)


class Items(dict):
    """A dictionary whose keys can be hashed in bounded time."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Add an item with a plain key."""
        _check_key(key)
        super().__setitem__(key, value)


class Call:
    """Placeholder of the result of a call, such as a tensor."""

    def __init__(self, function: str, args: tuple) -> None:
        self.function = function
        self.args = args
        self.state: Any = None
        self.is_tensor = function.startswith(_REBUILD)


def inspect_checkpoint(path: Path, with_checksums: bool = True) -> Any:
    """Check a file of ``torch.save``: a zip archive or the legacy format.

    Args:
        path: The file.
        with_checksums: Read the whole file and compare its checksums.
            Defaults to True.

    Returns:
        The saved object, with ``Call`` for tensors and other objects.

    Raises:
        InvalidCheckpoint: If the file is truncated or damaged, has a wrong
            checksum, claims more than it contains, could run code, or holds
            other tensors than plain ones.
    """
    with path.open('rb') as file:
        head = file.read(64)
    try:
        if head.startswith(b'PK\x03\x04'):
            reader, sizes = _read_archive(path, with_checksums)
        elif set(head) <= _TEXT:
            raise InvalidCheckpoint(
                f'is a text file that starts with {head[:24].decode()!r}',
                'it may be a download page or a git-lfs pointer: download '
                'the file itself',
            )
        else:
            reader, sizes = _read_legacy(path)
        _check_sizes(reader, sizes, path.stat().st_size)
        _check_nesting(reader.content)
    except InvalidCheckpoint:
        raise
    except Exception as error:  # damaged bytes raise anything
        text = f'{type(error).__name__}: {error}'[:120]
        raise InvalidCheckpoint(
            f'is truncated, damaged or not a checkpoint ({text!r})'
        ) from error
    return reader.content


def _read_archive(
    path: Path, with_checksums: bool
) -> tuple['_Reader', dict[str, int]]:
    with path.open('rb') as file:
        end = zipfile._EndRecData(file)
    if end and end[zipfile._ECD_SIZE] > _MAX_DIRECTORY:
        raise InvalidCheckpoint('contains too many tensors', SAVE_WEIGHTS)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        entries = {entry.filename: entry for entry in infos}
        if any(name.endswith('/constants.pkl') for name in entries):
            raise InvalidCheckpoint('is a TorchScript program', SAVE_WEIGHTS)
        pickles = [name for name in entries if name.endswith('/data.pkl')]
        if not pickles:
            raise InvalidCheckpoint(
                'is a zip archive that torch.save did not write',
                'extract it if it contains a checkpoint',
            )
        if (
            len(pickles) > 1
            or len(set(map(str.lower, entries))) < len(infos)
            or any(x.compress_type for x in infos)
            or any(x.compress_size != x.file_size for x in infos)
            or sum(x.file_size for x in infos) > path.stat().st_size
        ):
            raise InvalidCheckpoint(
                'has compressed, duplicate or overlapping entries, so '
                'torch.save did not write it'
            )
        if with_checksums and (damaged := archive.testzip()):
            raise InvalidCheckpoint(
                f'is damaged (wrong checksum of {damaged!r})',
                'download or copy it again; files written with '
                'torch.serialization.set_crc32_options(False) have no '
                'checksums and are not supported',
            )
        start = pickles[0].removesuffix('data.pkl') + 'data/'
        sizes = {
            name.removeprefix(start): entry.file_size
            for name, entry in entries.items()
            if name.startswith(start)
        }
        reader = _Reader(io.BytesIO(archive.read(pickles[0])))
        reader.content = reader.load()
        return reader, sizes


def _read_legacy(path: Path) -> tuple['_Reader', dict[str, int]]:
    with (
        path.open('rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        reader = _Reader(data)
        if reader.load() != _LEGACY_MAGIC:
            raise InvalidCheckpoint(
                'is truncated, damaged or not a checkpoint (no magic number)'
            )
        reader.load()  # protocol version
        reader.load()  # byte order and sizes of types
        reader.content = reader.load()
        item_sizes = {x.key: x.item_size for x in reader.storages}
        sizes = {}
        for key in reader.load():
            (numel,) = unpack('<q', reader.read(8))
            sizes[key] = numel * item_sizes[key]
            data.seek(sizes[key], 1)  # raises at the end of the file
        return reader, sizes


class _Reader(pickle._Unpickler):
    """Reads pickles of the opcodes that torch's restricted unpickler has."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding='latin1')
        self.content: Any = None
        self.globals: set[str] = set()
        self.storages: list[Storage] = []
        self.calls: list[Call] = []
        self.readline = file.readline
        self._file = file
        self._count = 0

    def read(self, count: int) -> bytes:
        """Read bytes."""
        data = self._file.read(count)
        if len(data) < count:
            raise InvalidCheckpoint('is truncated or damaged')
        return data

    def load(self) -> Any:
        """Read one pickle."""
        self.metastack, self.stack, self.memo = [], [], {}
        self.append = self.stack.append
        while (code := self.read(1)) != pickle.STOP:
            self._count += 1
            if self._count > _MAX_OBJECTS:
                raise InvalidCheckpoint(
                    f'contains more than {_MAX_OBJECTS:,} objects',
                    SAVE_WEIGHTS,
                )
            if code[0] not in self.dispatch:
                raise InvalidCheckpoint(
                    'is damaged or not a checkpoint (unsupported pickle '
                    f'opcode {code!r})',
                    SAVE_WEIGHTS,
                )
            self.dispatch[code[0]](self)
        return self.stack.pop()

    def find_class(self, module: str, name: str) -> Global:
        """Return a placeholder for an allowed class or function."""
        module, name = NAME_MAPPING.get(
            (module, name), (IMPORT_MAPPING.get(module, module), name)
        )
        path = f'{module}.{name}'
        if path not in self.globals and not is_allowed(path):
            if path.startswith(_REBUILD):
                raise InvalidCheckpoint(
                    'holds tensors without plain values '
                    f'({path.removeprefix(_REBUILD)!r})',
                    'save dense, unquantized tensors on the CPU',
                )
            raise InvalidCheckpoint(
                f'asks to use {path} while it is read and could run any '
                'code, so it was not loaded',
                f'if you trust it, {SAVE_WEIGHTS}',
            )
        self.globals.add(path)
        return Global(path)

    def persistent_load(self, pid: Any) -> Storage:
        """Return a placeholder for a storage."""
        kind, *fields = pid
        storage = Storage(*fields[:4])
        types = str, str, str, int
        if kind != 'storage' or not all(map(isinstance, storage, types)):
            raise InvalidCheckpoint('is damaged (not a storage)')
        self.storages.append(storage)
        return storage

    def load_dict(self) -> None:
        """Push a dictionary."""
        self.append(Items())

    def load_call(self) -> None:
        """Push a placeholder for the result of a call."""
        args, function = self.stack.pop(), self.stack.pop()
        if (
            not isinstance(function, Global)
            or not isinstance(args, tuple)
            or function in _NOT_CALLED
        ):
            raise InvalidCheckpoint(
                'asks to call something other than a function while it is '
                'read, so it could run any code',
                f'if you trust it, {SAVE_WEIGHTS}',
            )
        if function == _TYPED:  # calls another function
            function, args = args[0], args[2]
        if function in _HASHING:
            for keys in args:
                for key in keys:
                    _check_key(key)
        if function == '_codecs.encode' and args[1:] != ('latin1',):
            raise InvalidCheckpoint('is damaged (not bytes)')
        if function.endswith('multiarray._reconstruct') and args[1] != (0,):
            raise InvalidCheckpoint('is damaged (an array without data)')
        self.calls.append(Call(function, args))
        is_mapping = function in (*_HASHING[1:], *MAPPINGS)
        self.append(Items(*args) if is_mapping else self.calls[-1])

    def load_state(self) -> None:
        """Keep the state of an object."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    # The same opcodes as torch._weights_only_unpickler.
    dispatch = {
        code: pickle._Unpickler.dispatch[code]
        for code in b'\x80c(aesuQt\x85\x86\x87N\x88\x89)]\x8fJKMG\x8aXUhjqr'
    } | {
        pickle.EMPTY_DICT[0]: load_dict,
        pickle.REDUCE[0]: load_call,
        pickle.NEWOBJ[0]: load_call,
        pickle.BUILD[0]: load_state,
    }


def _check_key(key: Any) -> None:
    # Hashing nested tuples can crash Python; large integers can collide.
    for part in key if isinstance(key, tuple) else (key,):
        if type(part) not in _PLAIN or (
            type(part) is int and abs(part) >= 1 << 60
        ):
            raise InvalidCheckpoint(
                'is not a checkpoint: it has keys other than names and numbers'
            )


def _check_sizes(
    reader: _Reader, sizes: dict[str, int], file_size: int
) -> None:
    for storage in reader.storages:
        if storage.location == 'meta':
            raise InvalidCheckpoint('holds meta tensors, which have no values')
        found = sizes.get(storage.key, 0)
        needed = storage.numel * storage.item_size
        if storage.numel < 0 or needed > found:
            raise InvalidCheckpoint(
                f'is damaged: it claims {needed:,} bytes of values where it '
                f'contains {found:,}'
            )
    total = 0
    for call in reader.calls:
        if not call.function.startswith(f'{_REBUILD}tensor'):
            continue
        storage, offset, size, stride, *more = call.args
        size, stride = map(_plain_tuple, (size, stride))
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(
            type(x) is not int or not 0 <= x < 1 << 50 for x in numbers
        ):
            raise InvalidCheckpoint('is damaged (a tensor without a shape)')
        item = storage.item_size
        if call.function.endswith('_v3'):  # of an untyped storage
            item = getattr(torch, more[2].removeprefix('torch.')).itemsize
        claimed = math.prod(size) * item
        end = offset + sum((n - 1) * s for n, s in zip(size, stride)) + 1
        if claimed and end * item > storage.numel * storage.item_size:
            raise InvalidCheckpoint(
                f'is damaged: a tensor claims {end * item:,} bytes of a '
                f'storage of {storage.numel * storage.item_size:,}'
            )
        total += claimed
    if total > 2 * file_size + _CHUNK:
        raise InvalidCheckpoint(
            f'has {file_size:,} bytes but claims {total:,} bytes of repeated '
            'values',
            'save contiguous tensors: tensor.contiguous()',
        )


def _plain_tuple(value: Any) -> tuple:
    """The items of a tuple or of a ``torch.Size``."""
    (value,) = value.args if isinstance(value, Call) else (value,)
    if not isinstance(value, tuple):
        raise InvalidCheckpoint('is damaged (a tensor without a shape)')
    return value


def _check_nesting(content: Any) -> None:
    """Check that no object contains itself or is nested deeply."""
    path, done = set(), set()
    stack = [(content, False)]
    while stack:
        node, is_left = stack.pop()
        key = id(node)
        if is_left:
            path.discard(key)
            done.add(key)
        elif key in path:
            raise InvalidCheckpoint('is not a checkpoint: it contains itself')
        elif len(path) > _MAX_DEPTH:
            raise InvalidCheckpoint('is not a checkpoint: too deeply nested')
        elif key not in done and isinstance(node, (dict, list, tuple, Call)):
            path.add(key)
            stack.append((node, True))
            if isinstance(node, Call):
                node = node.args, node.state
            children = node.values() if isinstance(node, dict) else node
            stack += [(child, False) for child in children]
