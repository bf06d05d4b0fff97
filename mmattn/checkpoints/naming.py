"""Rename the tensors of a checkpoint, and list names in messages."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Buffers that models compute from the window and the map.
_COMPUTED = ('relative_position_index', 'attn_mask')
_NUM_SHOWN = 6


@dataclass
class Renamed:
    """A checkpoint in mmattn's names.

    Args:
        backbone: Tensors of the backbone.
        head: Tensors of a classifier's head, named as in mmpretrain's
            LinearClsHead.
        misfits: Names that the format does not have.
        outside: Names of the rest of a whole model, in formats without a
            prefix for the backbone.
    """

    backbone: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    misfits: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


def rename(
    state: dict[str, Tensor], new_name: Callable[[str], str | None]
) -> Renamed:
    """Rename all tensors and drop computed buffers.

    Args:
        state: Tensors by their old names.
        new_name: Maps an old name to mmattn's, with prefix ``head.`` for the
            head, or to None if the format does not have it.
    """
    renamed = Renamed()
    for key, value in state.items():
        if key.rpartition('.')[2] in _COMPUTED:
            continue
        name = new_name(key)
        if name is None:
            renamed.misfits.append(key)
        elif name.startswith('head.'):
            renamed.head[name.removeprefix('head.')] = value
        else:
            renamed.backbone[name] = value
    return renamed


def by_table(
    names: Mapping[str, str], *modules: tuple[str, str, Mapping[str, str]]
) -> Callable[[str], str | None]:
    """Return a function for :func:`rename`.

    Args:
        names: Old names to mmattn's. ``#`` stands for a number, ``#-1`` in a
            new name for one less, and ``*`` for a part without dots:
            ``'norm#.*': 'norm#-1.*'`` maps norm1.weight to norm0.weight.
        *modules: Old and new name of a module, and the names inside it.
    """
    names = dict(names)
    for place, new_place, inside in modules:
        for old, new in inside.items():
            names[f'{place}.{old}'] = f'{new_place}.{new}'
    rules = []
    for old, new in names.items():
        pattern = re.escape(old).replace(r'\#', r'(\d+)')
        pattern = re.compile(pattern.replace(r'\*', r'(\w+)'))
        rules.append((pattern, re.sub('[#*]', '{}', new)))

    def new_name(key: str) -> str | None:
        for pattern, new in rules:
            if found := pattern.fullmatch(key):
                name = re.sub(
                    r'(\d+)([+-]\d)',
                    lambda terms: str(int(terms[1]) + int(terms[2])),
                    new.format(*found.groups()),
                )
                # Such as norm0 where numbers start from 1.
                return None if '-' in name else name
        return None

    return new_name


def join(
    state: dict[str, Tensor], first: str, second: str, joined: str
) -> dict[str, Tensor]:
    """Concatenate pairs of tensors along their first axis.

    Args:
        state: Tensors by name.
        first: Part of the name of the first tensor of a pair.
        second: What the name of the second has in its place.
        joined: What the name of the result has in its place.
    """
    result = dict(state)
    for key in state:
        other = key.replace(first, second)
        if other != key and other in state:
            pair = result.pop(key), result.pop(other)
            result[key.replace(first, joined)] = torch.cat(pair)
    return result


def list_names(names: Collection[str]) -> str:
    """The first few names, for a message."""
    more = ', ...' if len(names) > _NUM_SHOWN else ''
    return ', '.join(list(names)[:_NUM_SHOWN]) + more


def count_names(names: Collection[str]) -> str:
    """The number of names and the first few, for a message."""
    return f'{len(names)} ({list_names(names)})' if names else '0'
