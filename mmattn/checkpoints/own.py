"""Checkpoints of mmattn: a bare backbone or that of a whole model."""

import re

from torch import Tensor

from .naming import Renamed, rename

_PARTS = r'stem\.|stages\.\d+\.|norm\d+\.|integrator\.|fusions\.\d+\.'
# Names of older files. SMT's attention still has a `local_conv`.
_OLD_LEPE = re.compile(r'\.(attn|feature_attn)\.local_conv\.')
_OLD_SCALES = re.compile(r'\.local_convs\.(\d+)\.(weight|bias)$')


def rename_own(state: dict[str, Tensor]) -> Renamed:
    """Keep the names and update old ones; see :func:`.naming.rename`."""
    is_smt = any('stem.batch_norm.' in key for key in state)

    def update(key: str) -> str | None:
        if not re.match(_PARTS, key):
            return None
        if not is_smt:
            key = _OLD_LEPE.sub(r'.\1.lepe.', key)
        return _OLD_SCALES.sub(r'.local_convs.\2\1', key)

    return rename(state, update)
