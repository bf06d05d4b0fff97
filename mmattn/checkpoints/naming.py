"""From another project's names to ours, key by key; names in messages."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from torch import Tensor

# Computed by the model from its window and the map: never loaded.
_COMPUTED = ('relative_position_index', 'attn_mask')
_NUM_SHOWN = 6


@dataclass
class Renamed:
    """A state dict in our names, sorted by where its tensors belong.

    Args:
        backbone: Tensors of the backbone.
        head: Tensors of a classifier's head, in mmpretrain's LinearClsHead
            names.
        misfits: Names that have no place in either.
        outside: Names of what is around the backbone in a whole model, where
            no prefix parts it.
    """

    backbone: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    misfits: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


def rename(
    state: dict[str, Tensor], new_name: Callable[[str], str | None]
) -> Renamed:
    """Give each tensor its new name; buffers that a model computes go.

    Args:
        state: Tensors by foreign name.
        new_name: Our name of a foreign one, ``head.`` in front for the head;
            None for a name that fits nowhere.
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
    """The first few of ``names``, for a message."""
    more = ', ...' if len(names) > _NUM_SHOWN else ''
    return ', '.join(list(names)[:_NUM_SHOWN]) + more


def count_names(names: Collection[str]) -> str:
    """How many ``names`` there are, and the first few, for a message."""
    return f'{len(names)} ({list_names(names)})' if names else '0'
