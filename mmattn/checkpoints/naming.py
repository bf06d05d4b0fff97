"""Rename the tensors of a checkpoint, and list names in messages."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

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


def list_names(names: Collection[str]) -> str:
    """The first few names, for a message."""
    more = ', ...' if len(names) > _NUM_SHOWN else ''
    return ', '.join(list(names)[:_NUM_SHOWN]) + more


def count_names(names: Collection[str]) -> str:
    """The number of names and the first few, for a message."""
    return f'{len(names)} ({list_names(names)})' if names else '0'
