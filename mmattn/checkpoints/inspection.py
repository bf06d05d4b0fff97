"""Check a file of ``torch.save`` before torch reads it.

``torch.load(weights_only=True)`` runs no code, but it trusts the sizes that a
file claims and ignores checksums. Here, every claim is compared with what the
file contains, in time and memory that its size bounds.
"""

import io
import math
import mmap
import zipfile
from pathlib import Path
from struct import unpack
from typing import Any

import torch

from .unpickling import REBUILD, SAVE_WEIGHTS, Call, InvalidCheckpoint, Reader

_MAX_DEPTH = 500
_MAX_DIRECTORY = 8 << 20  # bytes of names and places in an archive
_CHUNK = 1 << 20
# Pickles (protocol 2 and later) and torch storages have control characters
# near the start.
_TEXT = set(range(0x20, 0x7F)) | set(b'\t\r\n')
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


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
) -> tuple[Reader, dict[str, int]]:
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
        reader = Reader(io.BytesIO(archive.read(pickles[0])))
        reader.content = reader.load()
        return reader, sizes


def _read_legacy(path: Path) -> tuple[Reader, dict[str, int]]:
    with (
        path.open('rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        reader = Reader(data)
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


def _check_sizes(
    reader: Reader, sizes: dict[str, int], file_size: int
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
        if not call.function.startswith(f'{REBUILD}tensor'):
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
