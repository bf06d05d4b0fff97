"""Check a file of ``torch.save`` before torch reads it.

``torch.load(weights_only=True)`` runs no code, but it trusts the sizes that a
file claims and ignores checksums. This module reads the same opcodes into
placeholders, so time and memory are bounded by the size of the file, and
compares every claim with what the file contains.
"""

import math
import mmap
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import decode_long
from struct import unpack
from typing import Any, NamedTuple

import torch

# Far above real checkpoints; reading a million objects takes a second.
_MAX_OBJECTS = 1_000_000
_MAX_DEPTH = 500
_CHUNK = 1 << 20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_REBUILD = re.compile(r'torch\._utils\._rebuild_tensor(_v2|_v3)?')
# Tensors without plain values.
_SPECIAL = re.compile(
    r'torch\._utils\._rebuild_(qtensor|sparse_tensor|meta_tensor|nested_tensor'
    r'|wrapper_subclass|device_tensor)|torch\.(Q\w+)Storage|torch\.(sparse)\.'
)
_ITEM_SIZES = dict(
    Double=8,
    Float=4,
    Half=2,
    BFloat16=2,
    Long=8,
    Int=4,
    Short=2,
    ComplexDouble=16,
    ComplexFloat=8,
)
SAVE_WEIGHTS = "torch.save(model.state_dict(), 'weights.pth')"


class InvalidCheckpoint(ValueError):
    """A file is not a valid checkpoint.

    Args:
        what: What is wrong, such as ``'is truncated'``.
        advice: What to do.
    """

    def __init__(
        self, what: str, advice: str = 'download or copy it again'
    ) -> None:
        # Names come from the file: a terminal must not obey them.
        what = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in what)
        super().__init__(f'{what}; {advice}')
        self.what = what
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
        kind = self.kind.removeprefix('torch.').removesuffix('Storage')
        return _ITEM_SIZES.get(kind, 1)


class Call(dict):
    """Placeholder of the result of a call.

    If it is a mapping, items that the file adds become its items.
    """

    def __init__(self, function: str, args: tuple) -> None:
        super().__init__()
        self.function = function
        self.args = args
        self.state: Any = None

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Inspected(NamedTuple):
    """Content of a file.

    Args:
        content: The saved object, with ``Call`` for tensors and ``Storage``
            for storages.
        globals: Dotted names of all classes and functions in the file.
    """

    content: Any
    globals: set[str]


def inspect_checkpoint(path: Path, with_checksums: bool = True) -> Inspected:
    """Check a file of ``torch.save`` and return its structure.

    Reads zip archives and the legacy format.

    Args:
        path: The file.
        with_checksums: Read the whole file and compare its checksums.
            Defaults to True.

    Raises:
        InvalidCheckpoint: If the file is truncated or damaged, has a wrong
            checksum, claims more than it contains, or holds other tensors
            than plain ones.
    """
    with path.open('rb') as file:
        head = file.read(64)
    try:
        if head.startswith(b'PK\x03\x04'):
            reader, sizes = _read_archive(path, with_checksums)
        elif _is_text(head):
            raise InvalidCheckpoint(
                f'is a text file that starts with {head[:24].decode()!r}',
                'it may be a download page or a git-lfs pointer: download '
                'the file itself',
            )
        else:
            reader, sizes = _read_legacy(path)
        _check_globals(reader.globals)
        _check_sizes(reader.content, sizes, path.stat().st_size)
    except InvalidCheckpoint:
        raise
    except Exception as error:  # damaged bytes raise anything
        text = f'{type(error).__name__}: {error}'[:120]
        raise InvalidCheckpoint(
            f'is truncated, damaged or not a checkpoint ({text!r})'
        ) from error
    return Inspected(reader.content, reader.globals)


def _is_text(head: bytes) -> bool:
    # Pickles (protocol 2 and later) and torch storages have control
    # characters near the start.
    printable = set(range(0x20, 0x7F)) | set(b'\t\r\n')
    return set(head) <= printable


def _read_archive(
    path: Path, with_checksums: bool
) -> tuple['_Reader', dict[str, int]]:
    if not zipfile.is_zipfile(path):
        raise InvalidCheckpoint(
            'is truncated or damaged (the zip archive has no end)'
        )
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(name.endswith('/constants.pkl') for name in entries):
            raise InvalidCheckpoint(
                'is a TorchScript program',
                f'save only the weights: {SAVE_WEIGHTS}',
            )
        pickles = [name for name in entries if name.endswith('/data.pkl')]
        if not pickles:
            raise InvalidCheckpoint(
                'is a zip archive that torch.save did not write',
                'extract it if it contains a checkpoint',
            )
        total = sum(entry.file_size for entry in entries.values())
        if (
            len(entries) < len(archive.infolist())
            or len(pickles) > 1
            or any(entry.compress_type for entry in entries.values())
            or total > path.stat().st_size
        ):
            raise InvalidCheckpoint(
                'has compressed, duplicate or overlapping entries, so '
                'torch.save did not write it'
            )
        if with_checksums:
            for entry in entries.values():
                _check_sum(archive, entry)
        start = pickles[0].removesuffix('data.pkl') + 'data/'
        sizes = {
            name.removeprefix(start): entry.file_size
            for name, entry in entries.items()
            if name.startswith(start)
        }
        reader = _Reader(archive.read(pickles[0]))
        reader.content = reader.read()
        return reader, sizes


def _check_sum(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    try:
        with archive.open(entry) as file:
            while file.read(_CHUNK):  # compares the checksum at the end
                pass
    except zipfile.BadZipFile as error:
        raise InvalidCheckpoint(
            f'is damaged (wrong checksum of {entry.filename!r})',
            'download or copy it again; files written with '
            'torch.serialization.set_crc32_options(False) have no checksums '
            'and are not supported',
        ) from error


def _read_legacy(path: Path) -> tuple['_Reader', dict[str, int]]:
    with (
        path.open('rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        reader = _Reader(data)
        if reader.read() != _LEGACY_MAGIC:
            raise InvalidCheckpoint(
                'is truncated, damaged or not a checkpoint (no magic number)'
            )
        reader.read()  # protocol version
        reader.read()  # byte order and sizes of types
        reader.content = reader.read()
        item_sizes = {x.key: x.item_size for x in reader.storages}
        sizes = {}
        for key in reader.read():
            (numel,) = unpack('<q', reader.take(8))
            sizes[key] = numel * item_sizes[key]
            reader.skip(sizes[key])
        return reader, sizes


class _Reader:
    """Reads pickles of the opcodes that torch's restricted unpickler has."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.content: Any = None
        self.globals: set[str] = set()
        self.storages: list[Storage] = []
        self._data = data
        self._position = 0
        self._count = 0
        self._stack: list[Any] = []
        self._marks: list[list] = []
        self._memo: dict[int, Any] = {}

    def take(self, count: int) -> bytes:
        """Read bytes."""
        start = self._position
        self.skip(count)
        return self._data[start : start + count]

    def skip(self, count: int) -> None:
        """Skip bytes."""
        self._position += count
        if count < 0 or self._position > len(self._data):
            raise InvalidCheckpoint('is truncated or damaged')

    def read(self) -> Any:
        """Read one pickle."""
        self._stack, self._marks, self._memo = [], [], {}
        while (code := self.take(1)) != b'.':
            self._count += 1
            if self._count > _MAX_OBJECTS:
                raise InvalidCheckpoint(
                    f'contains more than {_MAX_OBJECTS:,} objects',
                    f'save only the weights: {SAVE_WEIGHTS}',
                )
            if code not in _OPCODES:
                raise InvalidCheckpoint(
                    'is damaged or not a checkpoint (unsupported pickle '
                    f'opcode {code!r})',
                    f'save the weights with torch.save: {SAVE_WEIGHTS}',
                )
            _OPCODES[code](self)
        return self._stack.pop()

    def _line(self) -> str:
        end = self._data.find(b'\n', self._position, self._position + 1000)
        line = self.take(end - self._position).decode()
        self.skip(1)
        return line

    def _global(self) -> None:
        module, name = self._line(), self._line()
        module, name = NAME_MAPPING.get(
            (module, name), (IMPORT_MAPPING.get(module, module), name)
        )
        self.globals.add(f'{module}.{name}')
        self._stack.append(Global(f'{module}.{name}'))

    def _call(self) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise InvalidCheckpoint(
                'asks to call something other than a function while it is '
                'read, so it could run any code',
                'if you trust it, save only its weights where it comes from: '
                f'{SAVE_WEIGHTS}',
            )
        self._stack.append(Call(function, args))

    def _build(self) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], Call):
            self._stack[-1].state = state

    def _pop_mark(self) -> list:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _append(self) -> None:
        item = self._stack.pop()
        self._stack[-1].append(item)

    def _appends(self) -> None:
        items = self._pop_mark()
        self._stack[-1].extend(items)

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._stack[-1][_plain_key(key)] = value

    def _set_items(self) -> None:
        items = self._pop_mark()
        keys = map(_plain_key, items[::2])
        self._stack[-1].update(zip(keys, items[1::2], strict=True))

    def _tuple(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        self._stack[-count:] = [items]

    def _storage(self) -> None:
        kind, *fields = self._stack.pop()
        storage = Storage(*fields[:4])
        if kind != 'storage' or not all(map(isinstance, storage, _FIELDS)):
            raise InvalidCheckpoint('is damaged (not a storage)')
        self.storages.append(storage)
        self._stack.append(storage)

    def _put(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _number(self, layout: str, size: int) -> Any:
        return unpack(layout, self.take(size))[0]


_FIELDS = (str, str, str, int)


def _pushes(make: Callable[[_Reader], Any]) -> Callable[[_Reader], None]:
    return lambda reader: reader._push(make(reader))


def _counted(layout: str, size: int) -> Callable[[_Reader], bytes]:
    return lambda reader: reader.take(reader._number(layout, size))


_OPCODES: dict[bytes, Callable[[_Reader], Any]] = {
    b'\x80': lambda reader: reader.skip(1),  # protocol
    b'c': _Reader._global,
    b'R': _Reader._call,
    b'\x81': _Reader._call,  # new object
    b'b': _Reader._build,
    b'(': _Reader._mark,
    b'a': _Reader._append,
    b'e': _Reader._appends,
    b's': _Reader._set_item,
    b'u': _Reader._set_items,
    b'Q': _Reader._storage,
    b't': _pushes(lambda reader: tuple(reader._pop_mark())),
    b'\x85': lambda reader: reader._tuple(1),
    b'\x86': lambda reader: reader._tuple(2),
    b'\x87': lambda reader: reader._tuple(3),
    b'N': _pushes(lambda reader: None),
    b'\x88': _pushes(lambda reader: True),
    b'\x89': _pushes(lambda reader: False),
    b')': _pushes(lambda reader: ()),
    b']': _pushes(lambda reader: []),
    b'}': _pushes(lambda reader: {}),
    b'\x8f': _pushes(lambda reader: set()),
    b'J': _pushes(lambda reader: reader._number('<i', 4)),
    b'K': _pushes(lambda reader: reader._number('<B', 1)),
    b'M': _pushes(lambda reader: reader._number('<H', 2)),
    b'G': _pushes(lambda reader: reader._number('>d', 8)),
    b'\x8a': _pushes(lambda reader: decode_long(_counted('<B', 1)(reader))),
    b'X': _pushes(
        lambda reader: str(_counted('<I', 4)(reader), 'utf-8', 'surrogatepass')
    ),
    b'U': _pushes(lambda reader: _counted('<B', 1)(reader).decode('latin1')),
    b'h': _pushes(lambda reader: reader._memo[reader._number('<B', 1)]),
    b'j': _pushes(lambda reader: reader._memo[reader._number('<I', 4)]),
    b'q': lambda reader: reader._put(reader._number('<B', 1)),
    b'r': lambda reader: reader._put(reader._number('<I', 4)),
}


def _check_globals(names: set[str]) -> None:
    for name in names:
        if special := _SPECIAL.match(name):
            kind = next(filter(None, special.groups()))
            raise InvalidCheckpoint(
                f'holds tensors without plain values ({kind!r})',
                'save dense, unquantized tensors on the CPU',
            )


def _check_sizes(content: Any, sizes: dict[str, int], limit: int) -> None:
    expanded = 0
    for call in _walk(content):
        if call.function.endswith('multiarray._reconstruct'):
            if call.args[1] != (0,):  # numpy fills it from the file later
                raise InvalidCheckpoint('is damaged (an array without data)')
        if not _REBUILD.fullmatch(call.function):
            continue
        storage, offset, size, stride, *more = call.args
        size, stride = (_plain_tuple(x) for x in (size, stride))
        if storage.location == 'meta':
            raise InvalidCheckpoint('holds meta tensors, which have no values')
        numbers = (offset, storage.numel, *size, *stride)
        if len(size) != len(stride) or any(
            type(x) is not int or not 0 <= x < 1 << 50 for x in numbers
        ):
            raise InvalidCheckpoint('is damaged (a tensor without a shape)')
        available = storage.numel * storage.item_size
        item = storage.item_size
        if call.function.endswith('_v3'):  # of an untyped storage
            item = getattr(torch, more[2][6:]).itemsize
        last = offset + sum((n - 1) * s for n, s in zip(size, stride)) + 1
        claimed = math.prod(size) * item
        if sizes.get(storage.key, -1) < available or (
            claimed and last * item > available
        ):
            raise InvalidCheckpoint(
                f'is damaged: it claims {max(last * item, available):,} bytes '
                f'of values where it contains {sizes.get(storage.key, 0):,}'
            )
        if claimed > available:
            expanded += claimed
    if expanded > limit + _CHUNK:
        raise InvalidCheckpoint(
            f'has {limit:,} bytes but claims {expanded:,} bytes of repeated '
            'values',
            'save contiguous tensors: tensor.contiguous()',
        )


def _plain_key(key: Any) -> Any:
    """Check a key of a dictionary: hashing nested tuples can crash Python."""
    if isinstance(key, tuple) and any(isinstance(x, tuple) for x in key):
        raise InvalidCheckpoint('is not a checkpoint: it has nested keys')
    return key


def _plain_tuple(value: Any) -> tuple:
    """The items of a tuple or of a ``torch.Size``."""
    return tuple(value.args[0] if isinstance(value, Call) else value)


def _walk(content: Any) -> Iterator[Call]:
    """Visit all calls.

    Raises:
        InvalidCheckpoint: If an object contains itself or is nested deeply.
    """
    path, done = set(), set()
    stack = [(content, False)]
    while stack:
        node, is_left = stack.pop()
        key = id(node)
        if is_left:
            path.discard(key)
            done.add(key)
            continue
        if key in path:
            raise InvalidCheckpoint('is not a checkpoint: it contains itself')
        if len(path) > _MAX_DEPTH:
            raise InvalidCheckpoint('is not a checkpoint: too deeply nested')
        if key in done or not isinstance(node, (dict, list, tuple)):
            continue
        if isinstance(node, Call):
            yield node
        path.add(key)
        stack.append((node, True))
        if isinstance(node, dict):
            children = [*node.keys(), *node.values()]
            if isinstance(node, Call):
                children += [node.args, node.state]
        else:
            children = node
        stack += [(child, False) for child in children]
