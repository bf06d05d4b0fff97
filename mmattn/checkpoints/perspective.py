"""Convert the names of published Perspective+ U-Net checkpoints.

https://github.com/tljxyys/Perspective-Unet. Its ablations without ENLTBs or
without the integrator are not supported. The ablation that reads the plain
path twice has the same names as the full model and cannot be detected.
"""

import re

from torch import Tensor

from .naming import Renamed, by_table, rename

# ENLTB; also used for the ENLCA format.
ENL_NAMES = {
    'conv_match1.0': 'attn.q',
    'conv_match2.0': 'attn.k',
    'conv_assembly.0': 'attn.v',
}
_ENLTB = {f'{old}.*': f'{new}.*' for old, new in ENL_NAMES.items()} | {
    'attn.projection_matrix': 'attn.projection',
    'norm#.*': 'norm#.*',
    'mlp.fc#.*': 'mlp.fc#.*',
}
_RESIDUAL = {
    '#.*': '#.*',
    '#.conv#.*': '#.conv#.conv.*',
    '#.bn#.*': '#.conv#.bn.*',
}
_TRANSFORMER = {
    'norm.*': 'norm.*',
    'layers.#.self_attn.in_proj_*': 'layers.#.attn.in_proj_*',
    'layers.#.self_attn.out_proj.*': 'layers.#.attn.o_proj.*',
    'layers.#.linear#.*': 'layers.#.fc#.*',
    'layers.#.norm#.*': 'layers.#.norm#.*',
}
_NAMES = {
    'Encoder1.layers.#.fusionblock.*.*': 'stages.#.conv.fuse.*.*',
    'Encoder2.downsample.#.*.*': 'stages.#+3.path_downsample.*.*',
    'Encoder2.channel_adjuster.#.*': 'stages.#+3.path_adjust.*',
    'scale_integrator.proj_layers.#.*': 'integrator.reduce.#.*',
    'scale_integrator.reproj_layers.#.*': 'fusions.#+2.expand.*',
    'fuser.#.*': 'fusions.#+2.fuse.*',
}
_LAYERS, _PATHS = 'Encoder1.layers.#', 'stages.#.conv.paths'
_MODULES = (
    (f'{_LAYERS}.resblock', f'{_PATHS}.0', _RESIDUAL),
    (f'{_LAYERS}.dilated_resblock', f'{_PATHS}.1', _RESIDUAL),
    ('Encoder2.stages.#.#', 'stages.#+2.blocks.#', _ENLTB),
    ('scale_integrator.transformer', 'integrator', _TRANSFORMER),
)
_PARTS = ('Encoder2', 'scale_integrator')
_LAYER = re.compile(r'^(Encoder1\.layers\.)(\d+)\.')
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
    new_name = by_table(_NAMES, *_MODULES)

    def halve(layer: re.Match) -> str:
        return f'{layer[1]}{int(layer[2]) // 2}.'

    # Every second layer halves the map and has no tensors.
    renamed = rename(state, lambda key: new_name(_LAYER.sub(halve, key)))
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


_CONV = {'conv.*': 'conv.*', 'bn.*': 'bn.*'}
# Names of the published decoder and its classifier, in PerspectiveHead.
name_in_perspective_head = by_table(
    {'segmentation_head.0.*': 'conv_seg.*'},
    ('decoder.first_block.conv1', 'deepest.0', _CONV),
    ('decoder.first_block.conv2', 'deepest.1', _CONV),
    ('decoder.blocks.#.conv1', 'joins.#.0', _CONV),
    ('decoder.blocks.#.conv2', 'joins.#.1', _CONV),
    ('decoder.last_block.conv1', 'finest.0', _CONV),
    ('decoder.last_block.conv2', 'finest.1', _CONV),
)
