"""Convert the names of official SMT checkpoints.

https://github.com/AFeng-x/SMT: classification, segmentation and detection.
The first published detection code calls the local convolution of the
attention ``dw_conv``.
"""

import re

import torch
from torch import Tensor

from .naming import Renamed, rename

_STEM = {'conv.0': 'conv', 'conv.1': 'batch_norm', 'conv.3': 'proj'}
_BLOCK = {
    'norm1': 'norm1',
    'attn.v': 'attn.v',
    'attn.s': 'attn.s',
    'attn.proj0': 'attn.expand',
    'attn.bn': 'attn.norm',
    'attn.proj1': 'attn.mix',
    'attn.qkv': 'attn.qkv',
    'attn.local_conv': 'attn.local_conv',
    'attn.dw_conv': 'attn.local_conv',
    'attn.proj': 'attn.proj',
    'norm2': 'norm2',
    'mlp.fc1': 'mlp.fc1',
    'mlp.dwconv.dwconv': 'mlp.local_conv',
    'mlp.fc2': 'mlp.fc2',
}
_GAMMA = {'gamma_1': 'gamma1.weight', 'gamma_2': 'gamma2.weight'}


def rename_smt(state: dict[str, Tensor]) -> Renamed:
    """Rename an official SMT checkpoint; see :func:`.naming.rename`."""
    return rename(_join_projections(state), _official)


def _join_projections(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate the projections ``q`` and ``kv`` to ``qkv``."""
    joined = dict(state)
    for key in state:
        keys = key.replace('.attn.q.', '.attn.kv.')
        if keys != key and keys in state:
            whole = torch.cat((joined.pop(key), joined.pop(keys)))
            joined[key.replace('.attn.q.', '.attn.qkv.')] = whole
    return joined


def _official(key: str) -> str | None:
    name, _, leaf = key.rpartition('.')
    if name == 'head':
        return f'head.fc.{leaf}'
    # Stages and output norms are numbered from 1.
    parts = re.fullmatch(r'norm([1-9])', name)
    if parts:
        return f'norm{int(parts[1]) - 1}.{leaf}'
    parts = re.fullmatch(r'patch_embed([1-9])\.(.+)', name)
    if parts:
        return _in_patch_embed(int(parts[1]) - 1, parts[2], leaf)
    parts = re.fullmatch(r'block([1-9])\.(\d+)\.(.+)', key)
    if parts is None:
        return None
    inside = _in_block(parts[3])
    stage = int(parts[1]) - 1
    return inside and f'stages.{stage}.blocks.{parts[2]}.{inside}'


def _in_patch_embed(stage: int, name: str, leaf: str) -> str | None:
    if name == 'norm':
        part = 'norm'
    elif stage > 0:
        part = 'conv' if name == 'proj' else None
    else:
        part = _STEM.get(name)
    where = f'stages.{stage}.downsample' if stage > 0 else 'stem'
    return part and f'{where}.{part}.{leaf}'


def _in_block(rest: str) -> str | None:
    if rest in _GAMMA:
        return _GAMMA[rest]
    name, _, leaf = rest.rpartition('.')
    # Heads are numbered from 1.
    parts = re.fullmatch(r'attn\.local_conv_([1-9]\d*)', name)
    if parts:
        return f'attn.local_convs.{leaf}{int(parts[1]) - 1}'
    return _BLOCK[name] + f'.{leaf}' if name in _BLOCK else None
