"""Our backbones by the names that config files use."""

from functools import cache
from typing import NamedTuple

import torch

from mmattn import backbones

from .unsupported import SwapError

# Strides of the maps of every backbone here.
STRIDES = (4, 8, 16, 32)
# The arch names of AttentionPyramid include the attention.
_CLASSES = {
    'boat-swin': 'BOATSwin',
    'boat-cswin': 'BOATCSWin',
    'cswin': 'CSWin',
    'smt': 'SMT',
    '': 'AttentionPyramid',
}


class Family(NamedTuple):
    """One backbone of one size."""

    name: str
    type: str
    arch: str
    channels: tuple[int, ...]
    """Of the maps at ``STRIDES``."""
    parameters: tuple[str, ...]
    """Names of its parameters."""


def list_families() -> dict[str, tuple[str, str]]:
    """Map names such as ``boat-swin-tiny`` to class and arch."""
    return {
        f'{family}-{arch}'.lstrip('-'): (name, arch)
        for family, name in _CLASSES.items()
        for arch in getattr(backbones, name).arch_zoo
    }


@cache
def find_family(name: str) -> Family:
    """Look up a backbone by name, such as ``boat-swin-tiny``.

    Raises:
        SwapError: If there is no such backbone.
    """
    known = list_families()
    if name not in known:
        raise SwapError(
            f'unknown backbone {name!r}; choose one of {", ".join(known)}'
        )
    class_name, arch = known[name]
    with torch.device('meta'):
        backbone = getattr(backbones, class_name)(arch=arch)
    return Family(
        name,
        f'mmattn.{class_name}',
        arch,
        tuple(backbone.out_channels),
        tuple(name for name, _ in backbone.named_parameters()),
    )
