"""Convert the names of published Perspective+ U-Net checkpoints.

https://github.com/tljxyys/Perspective-Unet. Its ablations without ENLTBs or
without the integrator are not supported. The ablation that reads the plain
path twice has the same names as the full model and cannot be detected.
"""

import re

from torch import Tensor

from .naming import Renamed, rename

# ENLTB; also used for the ENLCA format.
ENL_NAMES = {
    'conv_match1.0': 'attn.q',
    'conv_match2.0': 'attn.k',
    'conv_assembly.0': 'attn.v',
    'attn.projection_matrix': 'attn.projection',
}
_PATHS = {
    'resblock': 'conv.paths.0',
    'dilated_resblock': 'conv.paths.1',
    'fusionblock': 'conv.fuse',
}
_INTEGRATOR = {
    'proj_layers': 'reduce',
    'transformer.layers': 'layers',
    'transformer.norm': 'norm',
    'self_attn.out_proj': 'attn.o_proj',
    'linear1': 'fc1',
    'linear2': 'fc2',
}
_FIRST_DEEP = 2
_PARTS = ('Encoder2', 'scale_integrator')
_DECODER = {
    'first_block': 'deepest',
    'blocks': 'joins',
    'last_block': 'finest',
}
_IN_DECODER = re.compile(
    r'decoder\.(first_block|blocks|last_block)(\.\d+)?'
    r'\.conv([12])\.((?:conv|bn)\.\w+)'
)
_IN_PROJ = re.compile(r'(.*\.attn\.)in_proj_(weight|bias)')


def rename_perspective(state: dict[str, Tensor]) -> Renamed:
    """Rename the published encoder; see :func:`.naming.rename`.

    Raises:
        ValueError: If a part is missing, as in the published ablations.
    """
    for part in _PARTS:
        if not any(key.startswith(f'{part}.') for key in state):
            raise ValueError(
                f'{part} is missing from the Perspective+ U-Net checkpoint; '
                'models trained without it are not supported'
            )
    renamed = rename(state, _new_name)
    for key, value in list(renamed.backbone.items()):
        joined = _IN_PROJ.fullmatch(key)
        if joined:
            del renamed.backbone[key]
            before, leaf = joined.groups()
            for part, rows in zip('qkv', value.chunk(3)):
                renamed.backbone[f'{before}{part}_proj.{leaf}'] = rows
        elif re.search(r'\.attn\.[qkv]\.weight$', key) and value.ndim == 4:
            # A 1x1 convolution is a linear layer.
            renamed.backbone[key] = value.flatten(1)
    return renamed


def name_in_perspective_head(key: str) -> str | None:
    """Rename a tensor of the published decoder or its classifier.

    Args:
        key: Its name in the published network.

    Returns:
        The name in PerspectiveHead, or None if it belongs to neither.
    """
    place, _, leaf = key.rpartition('.')
    if place == 'segmentation_head.0':
        return f'conv_seg.{leaf}'
    found = _IN_DECODER.fullmatch(key)
    if not found:
        return None
    block, index, conv, rest = found.groups('')
    return f'{_DECODER[block]}{index}.{int(conv) - 1}.{rest}'


def _new_name(key: str) -> str | None:
    part, _, rest = key.partition('.')
    found = re.fullmatch(r'(layers|stages|\w+)\.(\d+)\.(.+)', rest)
    if part == 'scale_integrator':
        return _in_integrator(rest)
    if part == 'fuser':
        index, _, leaf = rest.partition('.')
        return f'fusions.{int(index) + _FIRST_DEEP}.fuse.{leaf}'
    if not found:
        return None
    kind, index, rest = found[1], int(found[2]), found[3]
    if part == 'Encoder1' and kind == 'layers':
        return f'stages.{index // 2}.{_in_convolutions(rest)}'
    if part != 'Encoder2':
        return None
    if kind == 'stages':
        for old, new in ENL_NAMES.items():
            rest = rest.replace(old, new)
        return f'stages.{index + _FIRST_DEEP}.blocks.{rest}'
    new = {'downsample': 'path_downsample', 'channel_adjuster': 'path_adjust'}
    if kind not in new:
        return None
    return f'stages.{index + _FIRST_DEEP + 1}.{new[kind]}.{rest}'


def _in_convolutions(rest: str) -> str:
    path, _, rest = rest.partition('.')
    rest = re.sub(r'(^|\.)conv(\d)\.', r'\1conv\2.conv.', rest)
    rest = re.sub(r'(^|\.)bn(\d)\.', r'\1conv\2.bn.', rest)
    return f'{_PATHS.get(path, path)}.{rest}'


def _in_integrator(rest: str) -> str:
    found = re.fullmatch(r'reproj_layers\.(\d+)\.(.+)', rest)
    if found:
        return f'fusions.{int(found[1]) + _FIRST_DEEP}.expand.{found[2]}'
    for old, new in _INTEGRATOR.items():
        rest = rest.replace(old, new)
    return f'integrator.{rest.replace("self_attn", "attn")}'
