"""Errors of a swap, and the configs whose backbone cannot be swapped."""

from mmattn.errors import UsageError

from .edits import Path, get_at

# Trackers and semi-supervised detectors wrap a detector.
_NETWORKS: tuple[Path, ...] = (('model',), ('model', 'detector'))

_MASKING = (
    'BEiT CAE EVA MAE MFF MILAN MaskFeat MixMIM SimMIM SparK iTPN'.split()
)
_WHOLE = (
    'BiSeNetV1 BiSeNetV2 CGNet DDRNet ERFNet FastSCNN HourglassNet ICNet '
    'PIDNet STDCContextPathNet'
).split()
# Algorithms that call parts of their backbone, or pass it more than images.
_ALGORITHMS = {
    **dict.fromkeys(
        _MASKING, 'the algorithm masks patches inside its backbone'
    ),
    'Detectron2Wrapper': 'the model is a Detectron2 model',
}
# Backbones that are more than a pyramid of maps.
_BACKBONES = {
    **dict.fromkeys(
        _WHOLE,
        'the backbone is a whole network, which its head takes apart',
    ),
    'UNet': 'the backbone is a U-Net: it has a decoder',
    'VPD': 'the backbone is a diffusion model with a text encoder',
    'LoRAModel': 'the config adapts pretrained weights of its backbone (LoRA)',
}


class SwapError(UsageError):
    """A swap that failed; nothing was written."""


class UnsupportedSwap(SwapError):
    """A config whose backbone cannot be swapped.

    Args:
        reason (str): The reason, the same for every config of this kind.
        detail (str): What is specific to this config. Defaults to ''.
    """

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(f'{reason}: {detail}' if detail else reason)
        self.reason = reason


class ChannelMismatch(UnsupportedSwap):
    """A neck or head that expects other channels than its backbone returns.

    Args:
        part (str): The neck or head.
        expected (int | list[int]): Its ``in_channels``.
        given (int | list[int]): The ``out_channels`` of the backbone.
    """

    def __init__(self, part: str, expected: object, given: object) -> None:
        super().__init__(
            f'the {part} does not fit its backbone',
            f'it has in_channels={expected}, but the backbone has '
            f'out_channels={given}',
        )


def find_network(config: dict) -> Path:
    """Return the path of the dict that holds backbone, neck and heads.

    Raises:
        UnsupportedSwap: If the config has no backbone.
    """
    model = config.get('model')
    if not isinstance(model, dict):
        raise UnsupportedSwap('the config has no model')
    for path in _NETWORKS:
        backbone = get_at(config, (*path, 'backbone'))
        if isinstance(backbone, dict) and 'type' in backbone:
            return path
    encoder = next((key for key in model if _is_image_encoder(key)), None)
    detail = f'{model.get("type")} has {encoder} instead' if encoder else ''
    raise UnsupportedSwap('the model has no backbone', detail)


def check_types(config: dict, network: dict) -> None:
    """Reject algorithms and backbones that only work as they are.

    Raises:
        UnsupportedSwap: With the reason.
    """
    algorithm = str(config['model'].get('type', '')).rpartition('.')[2]
    backbone = str(network['backbone']['type']).rpartition('.')[2]
    for name, table in ((algorithm, _ALGORITHMS), (backbone, _BACKBONES)):
        if name in table:
            raise UnsupportedSwap(table[name], name)


def check_uses(network: dict) -> None:
    """Reject networks that use more of their backbone than its maps.

    Raises:
        UnsupportedSwap: With the reason.
    """
    backbone = network['backbone']
    kind = str(backbone['type']).rpartition('.')[2]
    shared = get_at(network, ('roi_head', 'shared_head', 'type'))
    if shared is not None:
        raise UnsupportedSwap(
            'the RoI head contains the last stage of the ResNet',
            f'roi_head.shared_head is a {shared}',
        )
    if get_at(network, ('decode_head', 'type')) == 'LRASPPHead':
        raise UnsupportedSwap(
            'the head pools windows larger than our coarsest map',
            'LRASPPHead pools 49 x 49 windows',
        )
    if kind == 'TridentResNet':
        raise UnsupportedSwap('the backbone runs three branches', kind)
    if backbone.get('output_img'):
        raise UnsupportedSwap(
            'the neck runs the backbone again (recursive feature pyramid)',
            kind,
        )


def _is_image_encoder(key: str) -> bool:
    return any(word in key for word in ('image', 'vision', 'visual', 'img'))
