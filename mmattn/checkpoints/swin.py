"""Convert the names of Swin and BOAT-Swin checkpoints.

Swin of https://github.com/microsoft/Swin-Transformer, timm, torchvision and
OpenMMLab (mmpretrain, mmdet, mmseg), and BOAT-Swin of
https://github.com/mahaoyuHKU/pytorch-boat; of classification (a final
``norm``) and of detection (``norm0`` to ``norm3``).

In mmattn the downsampling belongs to the stage after it, in other code to the
stage before, except in timm >= 0.9.
"""

import re

from torch import Tensor

from .naming import Renamed, rename

_BLOCK = {
    name: name
    for name in (
        'norm1',
        'attn.qkv',
        'attn.proj',
        'norm2',
        'mlp.fc1',
        'mlp.fc2',
    )
}
_BOAT_BLOCK = _BLOCK | {
    'norm4': 'feature_norm',
    'attnC.qkv': 'feature_attn.qkv',
    'attnC.proj': 'feature_attn.proj',
    'attnC.get_v': 'feature_attn.lepe',
}
_TORCHVISION_BLOCK = _BLOCK | {'mlp.0': 'mlp.fc1', 'mlp.3': 'mlp.fc2'}
_OPENMMLAB_BLOCK = {
    'norm1': 'norm1',
    'attn.w_msa.qkv': 'attn.qkv',
    'attn.w_msa.proj': 'attn.proj',
    'norm2': 'norm2',
    'ffn.layers.0.0': 'mlp.fc1',
    'ffn.layers.1': 'mlp.fc2',
}
_STEM = {
    'patch_embed.proj': 'stem.proj',
    'patch_embed.projection': 'stem.proj',
    'patch_embed.norm': 'stem.norm',
    'features.0.0': 'stem.proj',
    'features.0.2': 'stem.norm',
}
_TABLE = 'relative_position_bias_table'


def rename_swin(state: dict[str, Tensor]) -> Renamed:
    """Rename a checkpoint of microsoft or timm; see :func:`.naming.rename`."""
    # Feature extractors of timm have layers_0.
    names = {key: re.sub(r'^layers_', 'layers.', key) for key in state}
    return _rename(state, _BLOCK, names)


def rename_boat_swin(state: dict[str, Tensor]) -> Renamed:
    """Rename an official BOAT-Swin checkpoint."""
    return _rename(state, _BOAT_BLOCK, {key: key for key in state})


def rename_torchvision_swin(state: dict[str, Tensor]) -> Renamed:
    """Rename a checkpoint of torchvision.

    ``features`` alternates between stages (odd) and downsampling (even).
    """

    def as_layers(match: re.Match) -> str:
        index = int(match[1])
        kind = 'blocks' if index % 2 else 'downsample'
        return f'layers.{(index - 1) // 2}.{kind}.'

    names = {
        key: re.sub(r'^features\.([1-9]\d*)\.', as_layers, key)
        for key in state
    }
    return _rename(state, _TORCHVISION_BLOCK, names)


def rename_openmmlab_swin(state: dict[str, Tensor]) -> Renamed:
    """Rename a checkpoint of mmpretrain, mmdet or mmseg."""
    names = {key: re.sub(r'^stages\.', 'layers.', key) for key in state}
    renamed = _rename(state, _OPENMMLAB_BLOCK, names)
    for key, value in renamed.backbone.items():
        if '.downsample.' in key:
            renamed.backbone[key] = _from_unfold(value)
    return renamed


def _rename(
    state: dict[str, Tensor],
    block: dict[str, str],
    names: dict[str, str],
) -> Renamed:
    """Rename a checkpoint.

    Args:
        block: Names inside a block.
        names: Keys to their names in a model with stages ``layers.N``.
    """
    pattern = re.compile(r'layers\.(\d+)\.(downsample)?')
    parts = [found for x in names.values() if (found := pattern.match(x))]
    last = max((int(part[1]) for part in parts), default=0)
    # In timm the first stage has no downsampling, elsewhere the last.
    downsampled = {int(part[1]) for part in parts if part[2]}
    offset = 0 if last in downsampled and 0 not in downsampled else 1

    def new_name(key: str) -> str | None:
        name, _, leaf = names[key].rpartition('.')
        if name in _STEM:
            return f'{_STEM[name]}.{leaf}'
        if name == 'norm':
            return f'norm{last}.{leaf}'
        if name in ('head', 'head.fc'):
            return f'head.fc.{leaf}'
        if re.fullmatch(r'norm\d', name):
            return key
        found = re.fullmatch(r'layers\.(\d+)\.downsample\.(\w+)', name)
        if found:
            stage = int(found[1]) + offset
            return f'stages.{stage}.downsample.{found[2]}.{leaf}'
        found = re.fullmatch(r'layers\.(\d+)\.blocks\.(\d+)\.(.+)', name)
        if not found:
            return None
        place = f'stages.{found[1]}.blocks.{found[2]}'
        if leaf == _TABLE and found[3] in ('attn', 'attn.w_msa'):
            return f'{place}.attn.{_TABLE}'
        if found[3] not in block:
            return None
        return f'{place}.{block[found[3]]}.{leaf}'

    return rename(state, new_name)


def _from_unfold(value: Tensor) -> Tensor:
    """Reorder the inputs of a patch merging, ``(..., 4 C)``.

    ``nn.Unfold`` orders them by channel, then by row and column of the 2 x 2
    pixels; mmattn by column and row, then by channel.
    """
    pixels = value.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]]  # (..., C, 4)
    return pixels.transpose(-2, -1).flatten(-2).contiguous()
