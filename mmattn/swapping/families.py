"""Our backbones under the names that config files give them."""

from functools import cache
from typing import NamedTuple

import torch

from mmattn import backbones
from mmattn.engine.usage import UsageError

# Strides of the maps of every backbone here.
STRIDES = (4, 8, 16, 32)
# Arch names of AttentionPyramid already say what attends.
_CLASSES = {
    'boat-swin': 'BOATSwin',
    'boat-cswin': 'BOATCSWin',
    'cswin': 'CSWin',
    'smt': 'SMT',
    '': 'AttentionPyramid',
}
# Parts of the names of parameters that do not decay.
_UNDECAYED = ('norm', 'relative_position_bias_table', '.gamma')


class Family(NamedTuple):
    """One backbone of one size."""

    name: str
    type: str
    arch: str
    channels: tuple[int, ...]
    """Of the maps at ``STRIDES``."""
    undecayed: tuple[str, ...]
    """Parts of the names of parameters that take no weight decay."""


def list_families() -> dict[str, tuple[str, str]]:
    """Name of a backbone, such as ``boat-swin-tiny``, to class and arch."""
    return {
        f'{family}-{arch}'.lstrip('-'): (name, arch)
        for family, name in _CLASSES.items()
        for arch in getattr(backbones, name).arch_zoo
    }


@cache
def find_family(name: str) -> Family:
    """Look up a backbone by its name.

    Raises:
        UsageError: If there is no such backbone.
    """
    known = list_families()
    if name not in known:
        raise UsageError(
            f'--backbone expects one of {", ".join(known)}, got {name!r}'
        )
    class_name, arch = known[name]
    with torch.device('meta'):
        backbone = getattr(backbones, class_name)(arch=arch)
    parameters = [key for key, _ in backbone.named_parameters()]
    return Family(
        name,
        f'mmattn.{class_name}',
        arch,
        tuple(backbone.out_channels),
        tuple(
            part
            for part in _UNDECAYED
            if any(part in parameter for parameter in parameters)
        ),
    )
