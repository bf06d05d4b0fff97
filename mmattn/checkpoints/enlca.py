"""Convert the names of the published ENLCA super-resolution network.

https://github.com/Zj-BinXia/ENLCA. The network around ENLCA has no
counterpart here, so its tensors are left out.
"""

import re

from torch import Tensor

from .naming import Renamed
from .perspective import ENL_NAMES

_NAMES = ENL_NAMES | {'attn_fn.projection_matrix': 'attn.projection'}
_LEAF = r'(?:\.(weight|bias))?'
_KEY = re.compile(rf'(.*\.)?({"|".join(map(re.escape, _NAMES))}){_LEAF}')


def rename_enlca(state: dict[str, Tensor]) -> Renamed:
    """Rename the ENLCA modules of a checkpoint; see :func:`.naming.rename`.

    A single module gets no prefix; several keep theirs.
    """
    found = {key: _KEY.fullmatch(key) for key in state}
    renamed = Renamed(outside=[key for key in state if not found[key]])
    parts = {key: match.groups('') for key, match in found.items() if match}
    prefixes = {prefix for prefix, _, _ in parts.values()}
    for key, (prefix, name, leaf) in parts.items():
        if len(prefixes) == 1:
            prefix = ''
        new = f'{prefix}{_NAMES[name]}' + (f'.{leaf}' if leaf else '')
        value = state[key]
        # A 1x1 convolution is a linear layer.
        renamed.backbone[new] = value.flatten(1) if value.ndim > 1 else value
    return renamed
