"""Convert the names of official CSWin and BOAT-CSWin checkpoints.

https://github.com/microsoft/CSWin-Transformer and
https://github.com/mahaoyuHKU/pytorch-boat, of classification (a final
``norm``) and of dense prediction (``norm1`` to ``norm4``).
"""

import re

import torch
from torch import Tensor

from .naming import Renamed, rename

_CSWIN_BLOCK = {
    'norm1': 'norm1',
    'qkv': 'attn.qkv',
    'proj': 'attn.proj',
    'attns.0.get_v': 'attn.lepe',
    'norm2': 'norm2',
    'mlp.fc1': 'mlp.fc1',
    'mlp.fc2': 'mlp.fc2',
}
_BOAT_BLOCK = _CSWIN_BLOCK | {
    'norm3': 'feature_norm',
    'content_attn.qkv': 'feature_attn.qkv',
    'content_attn.proj': 'feature_attn.proj',
    'content_attn.get_v': 'feature_attn.lepe',
}
_STEM = {'stage1_conv_embed.0': 'proj', 'stage1_conv_embed.2': 'norm'}


def rename_cswin(state: dict[str, Tensor]) -> Renamed:
    """Rename an official CSWin checkpoint; see :func:`.naming.rename`."""
    state = _join_orientations(state)
    return rename(state, lambda key: _official(key, _CSWIN_BLOCK, state))


def rename_boat_cswin(state: dict[str, Tensor]) -> Renamed:
    """Rename an official BOAT-CSWin checkpoint; see :func:`.rename_cswin`."""
    state = _join_orientations(state)
    return rename(state, lambda key: _official(key, _BOAT_BLOCK, state))


def _join_orientations(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate the two LePE convolutions of a block, C/2 + C/2 channels.

    Vertical stripes (``attns.0``) take the first half of the channels,
    horizontal ones (``attns.1``) the second. Blocks of the last stage have
    one convolution over all channels.
    """
    joined = dict(state)
    for key in state:
        first = key.replace('.attns.1.get_v.', '.attns.0.get_v.')
        if first != key and first in state:
            joined[first] = torch.cat((state[first], joined.pop(key)))
    return joined


def _official(
    key: str, block: dict[str, str], state: dict[str, Tensor]
) -> str | None:
    name, _, leaf = key.rpartition('.')
    if name in _STEM:
        return f'stem.{_STEM[name]}.{leaf}'
    if name == 'norm':
        return f'norm{_last_stage(state)}.{leaf}'
    if name == 'head':
        return f'head.fc.{leaf}'
    # Stages, patch merging and output norms are numbered from 1.
    parts = re.fullmatch(r'norm([1-9])', name)
    if parts:
        return f'norm{int(parts[1]) - 1}.{leaf}'
    parts = re.fullmatch(r'merge([1-9])\.(conv|norm)', name)
    if parts:
        return f'stages.{parts[1]}.downsample.{parts[2]}.{leaf}'
    parts = re.fullmatch(r'stage([1-9])\.(\d+)\.(.+)', name)
    if parts is None or parts[3] not in block:
        return None
    stage, index = int(parts[1]) - 1, parts[2]
    return f'stages.{stage}.blocks.{index}.{block[parts[3]]}.{leaf}'


def _last_stage(state: dict[str, Tensor]) -> int:
    stages = (re.match(r'stage(\d+)\.', key) for key in state)
    return max(int(stage[1]) for stage in stages if stage) - 1
