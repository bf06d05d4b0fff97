"""Which maps the heads read, and the edits that fit them to others."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .edits import Edit, Path
from .feature_maps import FeatureMap
from .unsupported import ChannelMismatch

# Entries of a network that do not read the maps of its backbone.
_NOT_HEADS = (
    'backbone',
    'neck',
    'data_preprocessor',
    'train_cfg',
    'test_cfg',
    'init_cfg',
    'language_model',
)
# Heads that only read the last of their maps unless this option is true.
_LAST_UNLESS = {'EncHead': 'add_lateral'}
_WHY = 'Channels of the new maps.'


class Maps(NamedTuple):
    """The inputs of the heads before and after the swap."""

    old: Sequence[FeatureMap]
    new: Sequence[FeatureMap]
    positions: dict[int, int]
    """Index of an old map to the index of the new one that replaces it."""


def find_heads(network: dict, path: Path) -> Iterator[tuple[Path, dict]]:
    """List the heads of a network, also those in lists and in other heads."""
    for key, value in network.items():
        if key in _NOT_HEADS or key.startswith('teacher'):
            continue
        items = [((*path, key), value)]
        if isinstance(value, (list, tuple)):
            items = [((*path, key, i), item) for i, item in enumerate(value)]
        for where, item in items:
            if isinstance(item, dict):
                yield where, item
                yield from _inner_heads(item, where)


def _inner_heads(head: dict, path: Path) -> Iterator[tuple[Path, dict]]:
    """Heads of mmseg inside another head, with their own ``in_index``."""
    for key, part in head.items():
        if isinstance(part, dict) and 'in_index' in part:
            yield (*path, key), part


def indices_read(head: dict, maps: Sequence[FeatureMap]) -> set[int]:
    """Return the indices of the maps that a head reads.

    Raises:
        ChannelMismatch: If the head expects other channels.
    """
    count = len(maps)
    read = set()
    if 'in_index' in head:
        read = {i % count for i in _indices(head)}
    elif isinstance(head.get('in_channels'), int):
        read = {_index_of(head, maps)}
    elif not any(_inner_heads(head, ())):
        read = set(range(count))
    if head.get('c1_in_channels'):
        read.add(0)
    return read


def edit_head(head: dict, path: Path, maps: Maps) -> list[Edit]:
    """Fit the channels and indices of a head to the new maps.

    Raises:
        ChannelMismatch: If the head expects other channels than those of the
            old maps.
    """
    edits = []
    expected, index = head.get('in_channels'), head.get('in_index')
    if isinstance(expected, int):
        old = _index_of(head, maps.old)
        new = maps.positions[old]
        channels = maps.new[new].channels
        edits.append(Edit((*path, 'in_channels'), channels, _WHY))
        if isinstance(index, int) and index >= 0 and index != new:
            edits.append(Edit((*path, 'in_index'), new))
        if isinstance(index, (list, tuple)) and list(index) != [new]:
            edits.append(Edit((*path, 'in_index'), type(index)([new])))
        if head.get('num_convs') == 0 and head.get('channels') == expected:
            why = 'Without convolutions, channels and in_channels are equal.'
            edits.append(Edit((*path, 'channels'), channels, why))
    elif expected is not None:
        olds = list(index if index is not None else range(len(expected)))
        olds = [i % len(maps.old) for i in olds]
        _check(head, expected, [maps.old[i].channels for i in olds])
        if index is not None:
            olds = [i % len(maps.old) for i in _indices(head)]
        news = [maps.positions[i] for i in olds]
        channels = type(expected)(maps.new[i].channels for i in news)
        edits.append(Edit((*path, 'in_channels'), channels, _WHY))
        if index is not None and list(index) != news:
            edits.append(Edit((*path, 'in_index'), type(index)(news)))
    if head.get('c1_in_channels'):
        channels = maps.new[maps.positions[0]].channels
        edits.append(Edit((*path, 'c1_in_channels'), channels))
    return edits + _edit_parts(head, path, maps)


def _edit_parts(head: dict, path: Path, maps: Maps) -> list[Edit]:
    """Fit the parts of a head, such as RoI heads and pixel decoders."""
    edits = []
    inner = [where[-1] for where, _ in _inner_heads(head, path)]
    parts = [
        ((*path, key), part)
        for key, part in head.items()
        if key != 'in_channels' and key not in inner
    ]
    while parts:
        where, part = parts.pop(0)
        if isinstance(part, dict):
            parts += [((*where, key), item) for key, item in part.items()]
        elif isinstance(part, (list, tuple)) and part:
            if where[-1] == 'in_channels' and list(part) == [
                each.channels for each in maps.old
            ]:
                news = [maps.new[p].channels for p in maps.positions.values()]
                edits.append(Edit(where, type(part)(news), _WHY))
            else:
                parts += [
                    ((*where, i), item)
                    for i, item in enumerate(part)
                    if isinstance(item, (dict, list, tuple))
                ]
        elif _reads_single_map(where) and part == maps.old[-1].channels:
            edits.append(Edit(where, maps.new[-1].channels, _WHY))
    return edits


def _indices(head: dict) -> list[int]:
    """The entries of ``in_index`` that the head uses."""
    indices = head['in_index']
    if isinstance(indices, int):
        return [indices]
    option = _LAST_UNLESS.get(head.get('type'))
    used = indices if option is None or head.get(option) else indices[-1:]
    return list(used)


def _reads_single_map(path: Path) -> bool:
    """Whether an entry holds the channels of the map of a RoI head."""
    return path[-1] == 'in_channels' or (
        path[-1] == 'out_channels'
        and any('roi_extractor' in str(key) for key in path)
    )


def _index_of(head: dict, maps: Sequence[FeatureMap]) -> int:
    """Index of the map that a head with a single input reads."""
    expected, index = head['in_channels'], head.get('in_index')
    if isinstance(index, (list, tuple)):
        index = index[0] if len(index) == 1 else None
    if index is not None:
        index %= len(maps)
        _check(head, expected, maps[index].channels)
        return index
    channels = [each.channels for each in maps]
    if expected not in channels:
        _check(head, expected, channels)
    return len(maps) - 1 - channels[::-1].index(expected)


def _check(head: dict, expected: Any, given: Any) -> None:
    if isinstance(expected, (list, tuple)):
        expected = list(expected)
    if expected != given:
        raise ChannelMismatch(f'head {head.get("type")}', expected, given)
