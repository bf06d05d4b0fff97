"""Names of the official Swin and BOAT-Swin files, and of OpenMMLab's Swin.

Official: https://github.com/microsoft/Swin-Transformer and
https://github.com/mahaoyuHKU/pytorch-boat, classification (a final ``norm``)
and detection (``norm0`` to ``norm3``) alike. OpenMMLab: the Swin backbones
of mmpretrain, mmdet and mmseg, whose patch merging gathers its four
neighbours with ``nn.Unfold``, in another order of channels.
"""

import re

from torch import Tensor

from .naming import Renamed, rename

_OFFICIAL_BLOCK = {
    'norm1': 'norm1',
    'attn.qkv': 'attn.qkv',
    'attn.proj': 'attn.proj',
    'norm2': 'norm2',
    'mlp.fc1': 'mlp.fc1',
    'mlp.fc2': 'mlp.fc2',
}
_BOAT_BLOCK = _OFFICIAL_BLOCK | {
    'norm4': 'feature_norm',
    'attnC.qkv': 'feature_attn.qkv',
    'attnC.proj': 'feature_attn.proj',
    'attnC.get_v': 'feature_attn.lepe',
}
_OPENMMLAB_BLOCK = {
    'norm1': 'norm1',
    'attn.w_msa.qkv': 'attn.qkv',
    'attn.w_msa.proj': 'attn.proj',
    'norm2': 'norm2',
    'ffn.layers.0.0': 'mlp.fc1',
    'ffn.layers.1': 'mlp.fc2',
}
_TABLE = 'attn.relative_position_bias_table'


def rename_swin(state: dict[str, Tensor]) -> Renamed:
    """Official Swin, see :func:`.naming.rename`."""
    return rename(state, lambda key: _official(key, _OFFICIAL_BLOCK, state))


def rename_boat_swin(state: dict[str, Tensor]) -> Renamed:
    """Official BOAT-Swin, see :func:`.naming.rename`."""
    return rename(state, lambda key: _official(key, _BOAT_BLOCK, state))


def rename_openmmlab_swin(state: dict[str, Tensor]) -> Renamed:
    """Swin of mmpretrain, mmdet and mmseg, see :func:`.naming.rename`."""
    renamed = rename(state, _openmmlab)
    for key, value in renamed.backbone.items():
        if '.downsample.' in key:
            renamed.backbone[key] = _from_unfold(value)
    return renamed


def _official(
    key: str, block: dict[str, str], state: dict[str, Tensor]
) -> str | None:
    name, _, leaf = key.rpartition('.')
    if name in ('patch_embed.proj', 'patch_embed.norm'):
        return key.replace('patch_embed', 'stem')
    if name == 'norm':
        return f'norm{_last_stage(state)}.{leaf}'
    if name == 'head':
        return f'head.fc.{leaf}'
    if re.fullmatch(r'norm\d', name):
        return key
    parts = re.fullmatch(r'layers\.(\d+)\.downsample\.(\w+)', name)
    if parts:
        # Ours halves the map on the way into a stage, not out of it.
        return f'stages.{int(parts[1]) + 1}.downsample.{parts[2]}.{leaf}'
    parts = re.fullmatch(r'layers\.(\d+)\.blocks\.(\d+)\.(.+)', key)
    if not parts:
        return None
    return _in_block(parts, _TABLE, block)


def _openmmlab(key: str) -> str | None:
    name, _, leaf = key.rpartition('.')
    if name == 'patch_embed.projection':
        return f'stem.proj.{leaf}'
    if name == 'patch_embed.norm':
        return f'stem.norm.{leaf}'
    if re.fullmatch(r'norm\d', name):
        return key
    parts = re.fullmatch(r'stages\.(\d+)\.downsample\.(\w+)', name)
    if parts:
        return f'stages.{int(parts[1]) + 1}.downsample.{parts[2]}.{leaf}'
    parts = re.fullmatch(r'stages\.(\d+)\.blocks\.(\d+)\.(.+)', key)
    if not parts:
        return None
    table = _TABLE.replace('attn.', 'attn.w_msa.')
    return _in_block(parts, table, _OPENMMLAB_BLOCK)


def _in_block(
    parts: re.Match, table: str, block: dict[str, str]
) -> str | None:
    stage, index, rest = parts.groups()
    if rest == table:
        return f'stages.{stage}.blocks.{index}.{_TABLE}'
    name, _, leaf = rest.rpartition('.')
    if name not in block:
        return None
    return f'stages.{stage}.blocks.{index}.{block[name]}.{leaf}'


def _last_stage(state: dict[str, Tensor]) -> int:
    stages = (re.match(r'layers\.(\d+)\.', key) for key in state)
    return max(int(stage[1]) for stage in stages if stage)


def _from_unfold(value: Tensor) -> Tensor:
    """Reorder the inputs of a patch merging, ``(..., 4 C)``.

    ``nn.Unfold`` keeps the four places of a channel together and walks them
    by row; ours keeps the channels of a place together and walks the places
    by column.
    """
    places = value.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]]  # (..., C, 4)
    return places.transpose(-2, -1).flatten(-2).contiguous()
