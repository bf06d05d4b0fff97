"""Names of the published ENLCA, inside of a super-resolution network.

https://github.com/Zj-BinXia/ENLCA. The network around it has no counterpart
here: what is not of an ENLCA stays outside.
"""

import re

from torch import Tensor

from .naming import Renamed
from .perspective import ENL_NAMES

_NAMES = ENL_NAMES | {'attn_fn.projection_matrix': 'attn.projection'}
_LEAF = r'(?:\.(weight|bias))?'
_KEY = re.compile(rf'(.*\.)?({"|".join(map(re.escape, _NAMES))}){_LEAF}')


def rename_enlca(state: dict[str, Tensor]) -> Renamed:
    """The ENLCA of a file, or all of them, each under its place in the file.

    See :func:`.naming.rename`.
    """
    found = {key: _KEY.fullmatch(key) for key in state}
    renamed = Renamed(outside=[key for key in state if not found[key]])
    parts = {key: match.groups('') for key, match in found.items() if match}
    places = {place for place, _, _ in parts.values()}
    for key, (place, name, leaf) in parts.items():
        if len(places) == 1:
            place = ''
        new = f'{place}{_NAMES[name]}' + (f'.{leaf}' if leaf else '')
        value = state[key]
        # A 1x1 convolution is a linear layer.
        renamed.backbone[new] = value.flatten(1) if value.ndim > 1 else value
    return renamed
