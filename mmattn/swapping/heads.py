"""What the heads of a network say about the maps that they take."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .edits import Edit, Path
from .levels import Level
from .refusal import SwapRefused

# Entries of a network that take no maps, or not those of its backbone.
_NOT_HEADS = (
    'backbone',
    'neck',
    'data_preprocessor',
    'train_cfg',
    'test_cfg',
    'init_cfg',
    'language_model',
)
# Heads that read the last of their maps only, unless this entry is true.
_LAST_UNLESS = {'EncHead': 'add_lateral'}
_WHY = 'Channels of the maps that take the place of the old ones.'


class Maps(NamedTuple):
    """What heads took before, what they take now."""

    old: Sequence[Level]
    new: Sequence[Level]
    positions: dict[int, int]
    """Index of an old map to the index of the one in its place."""


def find_heads(network: dict, path: Path) -> Iterator[tuple[Path, dict]]:
    """List the heads of a network, those in lists and in other heads too."""
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
    """Heads of mmseg inside another one, which name the maps they read."""
    for key, part in head.items():
        if isinstance(part, dict) and 'in_index' in part:
            yield (*path, key), part


def indices_read(head: dict, levels: Sequence[Level]) -> set[int]:
    """Indices of the maps that a head reads."""
    count = len(levels)
    read = set()
    if 'in_index' in head:
        read = {i % count for i in _indices(head)}
    elif isinstance(head.get('in_channels'), int):
        read = {_index_of(head, levels)}
    elif not any(_inner_heads(head, ())):
        read = set(range(count))
    if head.get('c1_in_channels'):
        read.add(0)
    return read


def edit_head(head: dict, path: Path, maps: Maps) -> list[Edit]:
    """Write what a head says about its maps.

    Raises:
        SwapRefused: If the channels that the head names are not those of the
            maps that it reads.
    """
    edits = []
    named, index = head.get('in_channels'), head.get('in_index')
    if isinstance(named, int):
        old = _index_of(head, maps.old)
        new = maps.positions[old]
        edits.append(
            Edit((*path, 'in_channels'), maps.new[new].channels, _WHY)
        )
        if isinstance(index, int) and index >= 0 and index != new:
            edits.append(Edit((*path, 'in_index'), new))
        if isinstance(index, (list, tuple)) and list(index) != [new]:
            edits.append(Edit((*path, 'in_index'), type(index)([new])))
        if head.get('num_convs') == 0 and head.get('channels') == named:
            why = 'Without convolutions, the channels stay as they are.'
            channels = maps.new[new].channels
            edits.append(Edit((*path, 'channels'), channels, why))
    elif named is not None:
        olds = list(index if index is not None else range(len(named)))
        olds = [i % len(maps.old) for i in olds]
        _check(head, named, [maps.old[i].channels for i in olds])
        if index is not None:
            olds = [i % len(maps.old) for i in _indices(head)]
        news = [maps.positions[i] for i in olds]
        channels = type(named)(maps.new[i].channels for i in news)
        edits.append(Edit((*path, 'in_channels'), channels, _WHY))
        if index is not None and list(index) != news:
            edits.append(Edit((*path, 'in_index'), type(index)(news)))
    if head.get('c1_in_channels'):
        channels = maps.new[maps.positions[0]].channels
        edits.append(Edit((*path, 'c1_in_channels'), channels))
    return edits + _edit_parts(head, path, maps)


def _edit_parts(head: dict, path: Path, maps: Maps) -> list[Edit]:
    """Write what the parts of a head say: RoI heads, pixel decoders."""
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
                level.channels for level in maps.old
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
    """The maps that a head names, without those that it does not use."""
    indices = head['in_index']
    if isinstance(indices, int):
        return [indices]
    option = _LAST_UNLESS.get(head.get('type'))
    used = indices if option is None or head.get(option) else indices[-1:]
    return list(used)


def _reads_single_map(path: Path) -> bool:
    """Whether an entry holds the channels that a RoI head takes."""
    return path[-1] == 'in_channels' or (
        path[-1] == 'out_channels'
        and any('roi_extractor' in str(key) for key in path)
    )


def _index_of(head: dict, levels: Sequence[Level]) -> int:
    """Index of the one map that a head with a single input reads."""
    channels, index = head['in_channels'], head.get('in_index')
    if isinstance(index, (list, tuple)):
        index = index[0] if len(index) == 1 else None
    if index is None:
        found = [
            i for i, level in enumerate(levels) if level.channels == channels
        ]
        _check(head, channels, None if not found else channels)
        return found[-1]
    index %= len(levels)
    _check(head, channels, levels[index].channels)
    return index


def _check(head: dict, named: Any, given: Any) -> None:
    if (
        given is None
        or (list(named) if isinstance(named, (list, tuple)) else named)
        != given
    ):
        raise SwapRefused(
            f'its {head.get("type")} does not read the maps of its backbone',
            f'it expects {named} channels, the maps have {given}',
        )
