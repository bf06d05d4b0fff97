"""Configs whose backbone is no part that can be taken out."""

from .edits import Path, get_at
from .refusal import SwapRefused

# Where a network may hide in a model: a tracker or a semi-supervised detector
# has its detector inside.
_NETWORKS: tuple[Path, ...] = (('model',), ('model', 'detector'))

# Algorithms that call parts of their backbone, or call it with more than
# images.
_MASKED = (
    'its algorithm hides patches inside its backbone, which is made for that'
)
_ALGORITHMS = {
    'BEiT': _MASKED,
    'CAE': _MASKED,
    'EVA': _MASKED,
    'MAE': _MASKED,
    'MFF': _MASKED,
    'MILAN': _MASKED,
    'MaskFeat': _MASKED,
    'MixMIM': _MASKED,
    'SimMIM': _MASKED,
    'SparK': _MASKED,
    'iTPN': _MASKED,
    'Detectron2Wrapper': 'its model is a model of Detectron2',
}
# Backbones that are more than a pyramid of maps.
_WHOLE = 'its backbone is a whole network, which its head takes apart'
_BACKBONES = {
    'BiSeNetV1': _WHOLE,
    'BiSeNetV2': _WHOLE,
    'CGNet': _WHOLE,
    'DDRNet': _WHOLE,
    'ERFNet': _WHOLE,
    'FastSCNN': _WHOLE,
    'HourglassNet': _WHOLE,
    'ICNet': _WHOLE,
    'PIDNet': _WHOLE,
    'STDCContextPathNet': _WHOLE,
    'UNet': 'its backbone decodes: it is a U-Net, encoder and decoder',
    'VPD': 'its backbone is a diffusion model with a text encoder',
    'LoRAModel': 'its backbone is there for its weights: LoRA adapts them',
}
_STAGE = 'its RoI head is the last stage of its ResNet'


def find_network(config: dict) -> Path:
    """Find the dict that holds the backbone, the neck and the heads.

    Raises:
        SwapRefused: If there is none.
    """
    model = config.get('model')
    if not isinstance(model, dict):
        raise SwapRefused('it has no model: others inherit from it')
    for path in _NETWORKS:
        if isinstance(get_at(config, (*path, 'backbone')), dict):
            if 'type' in get_at(config, (*path, 'backbone')):
                return path
    other = next((key for key in model if _sees(key)), None)
    detail = f'{model.get("type")} takes images with {other}' if other else ''
    raise SwapRefused('it has no backbone', detail)


def check_whole(config: dict, network: dict) -> None:
    """Refuse what has no backbone that could be taken out.

    Raises:
        SwapRefused: With the reason.
    """
    algorithm = str(config['model'].get('type', '')).rpartition('.')[2]
    backbone = network['backbone']
    kind = str(backbone['type']).rpartition('.')[2]
    for name, table in ((algorithm, _ALGORITHMS), (kind, _BACKBONES)):
        if name in table:
            raise SwapRefused(table[name], name)


def check_uses(network: dict) -> None:
    """Refuse networks that use more of their backbone than its maps.

    Raises:
        SwapRefused: With the reason.
    """
    backbone = network['backbone']
    kind = str(backbone['type']).rpartition('.')[2]
    shared = get_at(network, ('roi_head', 'shared_head', 'type'))
    if shared is not None:
        raise SwapRefused(_STAGE, f'roi_head.shared_head is a {shared}')
    if get_at(network, ('decode_head', 'type')) == 'LRASPPHead':
        raise SwapRefused(
            'its head pools windows larger than the coarsest map of ours',
            'LRASPPHead takes 49 x 49 places',
        )
    if kind == 'TridentResNet':
        raise SwapRefused('its backbone runs three branches', kind)
    if backbone.get('output_img'):
        raise SwapRefused(
            'its neck runs the backbone again (recursive feature pyramid)',
            kind,
        )


def _sees(key: str) -> bool:
    return any(word in key for word in ('image', 'vision', 'visual', 'img'))
