"""Convert the names of official CSWin and BOAT-CSWin checkpoints.

https://github.com/microsoft/CSWin-Transformer and
https://github.com/mahaoyuHKU/pytorch-boat, of classification (a final
``norm``) and of dense prediction (``norm1`` to ``norm4``).
"""

import re

from torch import Tensor

from .naming import Renamed, by_table, join, rename

_CSWIN_BLOCK = {
    'norm1.*': 'norm1.*',
    'qkv.*': 'attn.qkv.*',
    'proj.*': 'attn.proj.*',
    'attns.0.get_v.*': 'attn.lepe.*',
    'norm2.*': 'norm2.*',
    'mlp.fc1.*': 'mlp.fc1.*',
    'mlp.fc2.*': 'mlp.fc2.*',
}
_BOAT_BLOCK = _CSWIN_BLOCK | {
    'norm3.*': 'feature_norm.*',
    'content_attn.qkv.*': 'feature_attn.qkv.*',
    'content_attn.proj.*': 'feature_attn.proj.*',
    'content_attn.get_v.*': 'feature_attn.lepe.*',
}
# Stages and output norms are numbered from 1.
_NAMES = {
    'stage1_conv_embed.0.*': 'stem.proj.*',
    'stage1_conv_embed.2.*': 'stem.norm.*',
    **{
        f'merge{stage}.{part}.*': f'stages.{stage}.downsample.{part}.*'
        for stage in (1, 2, 3)
        for part in ('conv', 'norm')
    },
    'norm#.*': 'norm#-1.*',
    'head.*': 'head.fc.*',
}


def rename_cswin(
    state: dict[str, Tensor], block: dict[str, str] = _CSWIN_BLOCK
) -> Renamed:
    """Rename an official CSWin checkpoint; see :func:`.naming.rename`.

    Args:
        state: Tensors by their old names.
        block: Names inside a block. Defaults to those of CSWin.
    """
    stages = (re.match(r'stage(\d+)\.', key) for key in state)
    last = max((int(stage[1]) for stage in stages if stage), default=1) - 1
    names = _NAMES | {'norm.*': f'norm{last}.*'}
    new_name = by_table(names, ('stage#.#', 'stages.#-1.blocks.#', block))
    # Vertical stripes (attns.0) take the first half of the channels,
    # horizontal ones (attns.1) the second; blocks of the last stage have one
    # convolution over all.
    first, second = '.attns.0.get_v.', '.attns.1.get_v.'
    return rename(join(state, first, second, first), new_name)


def rename_boat_cswin(state: dict[str, Tensor]) -> Renamed:
    """Rename an official BOAT-CSWin checkpoint; see :func:`.rename_cswin`."""
    return rename_cswin(state, _BOAT_BLOCK)
