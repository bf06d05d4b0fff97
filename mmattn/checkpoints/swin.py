"""Convert the names of Swin and BOAT-Swin checkpoints.

Swin of https://github.com/microsoft/Swin-Transformer, timm, torchvision and
OpenMMLab (mmpretrain, mmdet, mmseg), and BOAT-Swin of
https://github.com/mahaoyuHKU/pytorch-boat; of classification (a final
``norm``) and of detection (``norm0`` to ``norm3``).

In mmattn the downsampling belongs to the stage after it, in other code to the
stage before, except in timm >= 0.9.
"""

import re
from collections.abc import Callable
from functools import partial

from torch import Tensor

from .naming import Renamed, by_table, rename

_NAMES = {
    'patch_embed.proj.*': 'stem.proj.*',
    'patch_embed.projection.*': 'stem.proj.*',
    'patch_embed.norm.*': 'stem.norm.*',
    'features.0.0.*': 'stem.proj.*',
    'features.0.2.*': 'stem.norm.*',
    'layers.#.downsample.*.*': 'stages.#.downsample.*.*',
    'norm#.*': 'norm#.*',
    'head.*': 'head.fc.*',
    'head.fc.*': 'head.fc.*',
}
_TABLE = 'attn.relative_position_bias_table'
# Inside a block.
_BLOCK = {
    'norm1.*': 'norm1.*',
    _TABLE: _TABLE,
    'attn.qkv.*': 'attn.qkv.*',
    'attn.proj.*': 'attn.proj.*',
    'norm2.*': 'norm2.*',
    'mlp.fc1.*': 'mlp.fc1.*',
    'mlp.fc2.*': 'mlp.fc2.*',
}
_BOAT_BLOCK = _BLOCK | {
    'norm4.*': 'feature_norm.*',
    'attnC.qkv.*': 'feature_attn.qkv.*',
    'attnC.proj.*': 'feature_attn.proj.*',
    'attnC.get_v.*': 'feature_attn.lepe.*',
}
_TORCHVISION_BLOCK = _BLOCK | {'mlp.0.*': 'mlp.fc1.*', 'mlp.3.*': 'mlp.fc2.*'}
_OPENMMLAB_BLOCK = {
    'norm1.*': 'norm1.*',
    'attn.w_msa.relative_position_bias_table': _TABLE,
    'attn.w_msa.qkv.*': 'attn.qkv.*',
    'attn.w_msa.proj.*': 'attn.proj.*',
    'norm2.*': 'norm2.*',
    'ffn.layers.0.0.*': 'mlp.fc1.*',
    'ffn.layers.1.*': 'mlp.fc2.*',
}


def _name_stages(key: str) -> str:
    """Rename stages ``layers_N`` of timm's feature extractors."""
    return re.sub('^layers_', 'layers.', key)


def rename_swin(
    state: dict[str, Tensor],
    block: dict[str, str] = _BLOCK,
    as_layers: Callable[[str], str] = _name_stages,
) -> Renamed:
    """Rename a checkpoint of microsoft or timm; see :func:`.naming.rename`.

    Args:
        state: Tensors by their old names.
        block: Names inside a block, for other formats.
        as_layers: Maps a key to its name in a model with stages ``layers.N``.
    """
    pattern = re.compile(r'layers\.(\d+)\.(downsample)?')
    parts = [x for key in state if (x := pattern.match(as_layers(key)))]
    last = max((int(part[1]) for part in parts), default=0)
    names = _NAMES | {'norm.*': f'norm{last}.*'}
    # In timm the first stage has no downsampling, elsewhere the last.
    downsampled = {int(part[1]) for part in parts if part[2]}
    if last not in downsampled or 0 in downsampled:
        old = 'layers.#.downsample.*.*'
        names[old] = names[old].replace('#', '#+1')
    blocks = 'layers.#.blocks.#', 'stages.#.blocks.#', block
    new_name = by_table(names, blocks)
    return rename(state, lambda key: new_name(as_layers(key)))


def rename_boat_swin(state: dict[str, Tensor]) -> Renamed:
    """Rename an official BOAT-Swin checkpoint."""
    return rename_swin(state, _BOAT_BLOCK)


def rename_torchvision_swin(state: dict[str, Tensor]) -> Renamed:
    """Rename a checkpoint of torchvision.

    ``features`` alternates between stages (odd) and downsampling (even).
    """

    def as_layers(match: re.Match) -> str:
        index = int(match[1])
        kind = 'blocks' if index % 2 else 'downsample'
        return f'layers.{(index - 1) // 2}.{kind}.'

    pattern = r'^features\.([1-9]\d*)\.'
    return rename_swin(
        state, _TORCHVISION_BLOCK, partial(re.sub, pattern, as_layers)
    )


def rename_openmmlab_swin(state: dict[str, Tensor]) -> Renamed:
    """Rename a checkpoint of mmpretrain, mmdet or mmseg."""
    as_layers = partial(re.sub, r'^stages\.', 'layers.')
    renamed = rename_swin(state, _OPENMMLAB_BLOCK, as_layers)
    for key, value in renamed.backbone.items():
        if '.downsample.' in key:
            renamed.backbone[key] = _from_unfold(value)
    return renamed


def _from_unfold(value: Tensor) -> Tensor:
    """Reorder the inputs of a patch merging, ``(..., 4 C)``.

    ``nn.Unfold`` orders them by channel, then by row and column of the 2 x 2
    pixels; mmattn by column and row, then by channel.
    """
    pixels = value.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]]  # (..., C, 4)
    return pixels.transpose(-2, -1).flatten(-2).contiguous()
