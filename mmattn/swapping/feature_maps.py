"""Feature maps of backbones and necks, and which of ours replace them."""

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor
from torch.utils._pytree import tree_map

from .edits import plain
from .families import STRIDES
from .unsupported import UnsupportedSwap

# Side of the image that backbones are run on: a multiple of all strides and
# of Swin's windows. A smaller one where values have to be computed.
_SIDE = 224
_SMALL_SIDE = 128
# Large enough for necks that add coarser maps.
_NECK_SIDE = 512


class FeatureMap(NamedTuple):
    """A map ``(B, channels, side / stride, side / stride)``.

    A vector ``(B, channels)`` has stride 0.
    """

    channels: int
    stride: int


def probe_backbone(cfg: dict, codebase: str) -> list[FeatureMap]:
    """Run a backbone and return what its outputs are.

    Args:
        cfg: Config of the backbone.
        codebase: Codebase of the config.

    Raises:
        UnsupportedSwap: If the backbone cannot be built, needs more than an
            image, or returns something other than maps or vectors.
    """
    cfg = {k: v for k, v in cfg.items() if k not in ('init_cfg', 'pretrained')}
    kind = str(cfg.get('type'))
    side = cfg.get('img_size', _SIDE)
    size = (side, side) if isinstance(side, int) else tuple(side)
    image = torch.empty(1, cfg.get('in_channels') or 3, *size)
    small = _SMALL_SIDE if 'img_size' not in cfg else max(size)
    try:
        with DefaultScope.overwrite_default_scope(codebase):
            module = build_without_weights(cfg)
    except Exception as error:  # codebases raise anything
        raise UnsupportedSwap(
            f'the backbone {kind} cannot be built here',
            f'{type(error).__name__}: {error}',
        ) from error
    _check_signature(module, kind)
    try:
        outputs, image = _run(module, image, image[..., :small, :small])
    except Exception as error:
        raise UnsupportedSwap(
            'the backbone does not run on an image',
            f'{kind}: {type(error).__name__}: {error}',
        ) from error
    return _describe(outputs, image.shape[2], kind)


def probe_neck(
    cfg: Any, maps: Sequence[FeatureMap], codebase: str
) -> list[FeatureMap]:
    """Run a neck and return what its outputs are.

    Args:
        cfg: Config of the neck, or a list of them.
        maps: Its inputs.
        codebase: Codebase of the config.

    Raises:
        UnsupportedSwap: If it does not run on these maps.
    """
    cfgs = cfg if isinstance(cfg, (list, tuple)) else [cfg]
    if all('GlobalAveragePooling' in str(cfg.get('type')) for cfg in cfgs):
        # Its window may fit maps of a single image size only.
        return [FeatureMap(each.channels, 0) for each in maps]
    large, small = (
        tuple(
            torch.empty(1, each.channels, *2 * (side // each.stride,))
            for each in maps
        )
        for side in (_NECK_SIDE, _SMALL_SIDE)
    )
    try:
        with DefaultScope.overwrite_default_scope(codebase):
            neck = nn.Sequential(*map(build_without_weights, cfgs))
        outputs, used = _run(neck, large, small)
    except Exception as error:  # codebases raise anything
        kinds = ' and '.join(str(cfg.get('type')) for cfg in cfgs)
        raise UnsupportedSwap(
            f'the neck {kinds} does not accept these maps',
            f'{type(error).__name__}: {error}',
        ) from error
    side = _NECK_SIDE if used is large else _SMALL_SIDE
    return _describe(outputs, side, 'neck')


def match_maps(maps: Sequence[FeatureMap]) -> list[int]:
    """Choose one of our four maps for each map of the old backbone.

    Maps are matched by stride. Where several old maps have the same stride
    (dilated stages), or one has a stride that ours do not have, they are
    matched by depth, the last to our last.

    Returns:
        Index into ``STRIDES`` for each map.

    Raises:
        UnsupportedSwap: If the maps do not go from fine to coarse, or if
            there are more than four.
    """
    strides = [each.stride for each in maps]
    if len(set(strides)) == 1:
        level = strides[0].bit_length()
        distances = [abs(x.bit_length() - level) for x in STRIDES]
        return [distances.index(min(distances))] * len(strides)
    detail = f'their strides are {", ".join(map(str, strides))}'
    if strides != sorted(strides):
        raise UnsupportedSwap(
            'the backbone is a whole network: its maps come from a decoder '
            'or from branches',
            detail,
        )
    if len(set(strides)) == len(strides) and set(strides) <= set(STRIDES):
        return [STRIDES.index(stride) for stride in strides]
    if len(strides) > len(STRIDES):
        raise UnsupportedSwap(
            f'the backbone returns more than {len(STRIDES)} maps',
            detail,
        )
    return list(range(len(STRIDES) - len(strides), len(STRIDES)))


@contextmanager
def without_weights() -> Iterator[None]:
    """Build modules whose parameters are on the meta device."""
    register = nn.Module.register_parameter

    def register_meta(self, name, parameter):
        register(self, name, parameter)
        if parameter is not None and parameter.device.type != 'meta':
            self._parameters[name] = nn.Parameter(
                parameter.to('meta'), parameter.requires_grad
            )

    nn.Module.register_parameter = register_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def build_without_weights(cfg: dict) -> nn.Module:
    """Build a module on the meta device, in the current scope.

    Modules that compute with their weights in ``__init__`` get real ones.
    """
    try:
        with without_weights():
            return MODELS.build(ConfigDict(plain(cfg)))
    except RuntimeError:
        return MODELS.build(ConfigDict(plain(cfg)))


def _run(module: nn.Module, x: Any, small: Any) -> tuple[Any, Any]:
    """Run on the meta device, or on the CPU where an operation needs it.

    Returns:
        The outputs, and which of the two inputs they belong to.
    """
    module.eval()
    with torch.no_grad():
        try:
            module.to_empty(device='meta')
            return module(tree_map(lambda part: part.to('meta'), x)), x
        except Exception:  # compiled operations have no meta version
            return module.to_empty(device='cpu')(small), small


def _check_signature(module: nn.Module, kind: str) -> None:
    parameters = inspect.signature(module.forward).parameters.values()
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    if len(needed) > 1:
        raise UnsupportedSwap(
            f'the backbone needs more than images ({", ".join(needed[1:])})',
            kind,
        )


def _describe(outputs: Any, side: int, kind: str) -> list[FeatureMap]:
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not outputs or not all(
        isinstance(out, Tensor) and out.ndim in (2, 4) for out in outputs
    ):
        raise UnsupportedSwap('the backbone does not return maps', kind)
    maps = []
    for out in outputs:
        stride = 0
        if out.ndim == 4:
            # The next power of two: 224 / 15 is a map at stride 16.
            ratio = side / max(out.shape[2], 1)
            stride = 2 ** max(round(math.log2(ratio)), 0)
        maps.append(FeatureMap(out.shape[1], stride))
    return maps
