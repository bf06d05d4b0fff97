"""Our own files, a bare backbone or the backbone of a whole model."""

import re

from torch import Tensor

from .naming import Renamed, rename

_PARTS = r'stem\.|stages\.\d+\.|norm\d+\.|integrator\.|fusions\.\d+\.'


def rename_own(state: dict[str, Tensor]) -> Renamed:
    """Keep the names, see :func:`.naming.rename`."""
    return rename(state, _same)


def _same(key: str) -> str | None:
    return key if re.match(_PARTS, key) else None
