"""The maps that a module gives, and which of ours take their place."""

import inspect
from collections.abc import Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from .edits import plain
from .families import STRIDES
from .refusal import SwapRefused

# Side of the image that shapes are found with: a multiple of every stride,
# and of the windows of Swin. Where numbers are computed, a smaller one.
_SIDE = 224
_SMALL_SIDE = 128
# For necks that go on to coarser and coarser maps.
_NECK_SIDE = 512


class Level(NamedTuple):
    """One output: a map ``(B, channels, side / stride, side / stride)``.

    A vector ``(B, channels)`` has stride 0.
    """

    channels: int
    stride: int


def probe_backbone(cfg: dict, host: str) -> list[Level]:
    """Find what a backbone returns for an image, by running it.

    Args:
        cfg: Its config.
        host: Codebase whose names the config uses.

    Returns:
        One level for each output.

    Raises:
        SwapRefused: If it needs more than an image, cannot be built here, or
            returns something else than maps or vectors.
    """
    cfg = {k: v for k, v in cfg.items() if k not in ('init_cfg', 'pretrained')}
    return list(_probe_backbone(_Key(plain(cfg)), host))


class _Key:
    """A config as the key of a cache: equal if it reads the same."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.text = repr(cfg)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@lru_cache(maxsize=1024)
def _probe_backbone(key: _Key, host: str) -> tuple[Level, ...]:
    cfg = key.cfg
    kind = str(cfg.get('type'))
    side = cfg.get('img_size', _SIDE)
    size = (side, side) if isinstance(side, int) else tuple(side)
    image = torch.empty(1, cfg.get('in_channels') or 3, *size)
    small = _SMALL_SIDE if 'img_size' not in cfg else max(size)
    try:
        with DefaultScope.overwrite_default_scope(host):
            module = _build_without_weights(cfg)
    except Exception as error:  # of a codebase, about a config of its own
        raise SwapRefused(
            f'its backbone {kind} cannot be built here',
            f'{type(error).__name__}: {error}',
        ) from error
    _check_signature(module, kind)
    try:
        outputs, image = _run(module, image, image[..., :small, :small])
    except Exception as error:  # of a codebase, about an image of ours
        raise SwapRefused(
            'its backbone does not run on an RGB image',
            f'{kind}: {type(error).__name__}: {error}',
        ) from error
    return tuple(_levels_of(outputs, image.shape[2], kind))


def probe_neck(cfg: Any, levels: Sequence[Level], host: str) -> list[Level]:
    """Find what a neck, or a list of them, makes of maps.

    Args:
        cfg: Its config.
        levels: What it takes.
        host: Codebase whose names the config uses.

    Returns:
        One level for each output.

    Raises:
        SwapRefused: If it does not run on these maps.
    """
    cfgs = plain(list(cfg) if isinstance(cfg, (list, tuple)) else [cfg])
    if all('GlobalAveragePooling' in str(cfg.get('type')) for cfg in cfgs):
        # Its window may be as large as the map of one size of image only.
        return [Level(level.channels, 0) for level in levels]
    return list(_probe_neck(_Key(cfgs), tuple(levels), host))


@lru_cache(maxsize=1024)
def _probe_neck(
    key: _Key, levels: tuple[Level, ...], host: str
) -> tuple[Level, ...]:
    cfgs = key.cfg
    maps, small = (
        tuple(
            torch.empty(1, level.channels, *2 * (side // level.stride,))
            for level in levels
        )
        for side in (_NECK_SIDE, _SMALL_SIDE)
    )
    try:
        with DefaultScope.overwrite_default_scope(host):
            neck = nn.Sequential(*map(_build_without_weights, cfgs))
        outputs, used = _run(neck, maps, small)
    except Exception as error:  # of a codebase, about maps that do not fit
        kinds = ' and '.join(str(cfg.get('type')) for cfg in cfgs)
        raise SwapRefused(
            f'its neck {kinds} does not take these maps',
            f'{type(error).__name__}: {error}',
        ) from error
    side = _NECK_SIDE if used is maps else _SMALL_SIDE
    return tuple(_levels_of(outputs, side, 'neck'))


def match_levels(levels: Sequence[Level]) -> list[int]:
    """Choose one of our four maps for each map of the old backbone.

    Strides decide. Where several old maps share one (dilated stages), or
    have one that ours do not have, the depth decides: the last takes our
    last.

    Returns:
        Index into ``STRIDES`` for each level.

    Raises:
        SwapRefused: If the maps do not go from fine to coarse, or if they
            are more than four.
    """
    strides = [level.stride for level in levels]
    if len(set(strides)) == 1:
        return [_nearest(strides[0])] * len(strides)
    if strides != sorted(strides):
        raise SwapRefused(
            'its backbone is a whole network: its maps are decoded or come '
            'from branches',
            f'their strides are {", ".join(map(str, strides))}',
        )
    if len(set(strides)) == len(strides) and set(strides) <= set(STRIDES):
        return [STRIDES.index(stride) for stride in strides]
    if len(strides) > len(STRIDES):
        raise SwapRefused(
            f'its backbone gives more than {len(STRIDES)} maps',
            f'their strides are {", ".join(map(str, strides))}',
        )
    return list(range(len(STRIDES) - len(strides), len(STRIDES)))


def _nearest(stride: int) -> int:
    return min(
        range(len(STRIDES)),
        key=lambda i: abs(STRIDES[i].bit_length() - stride.bit_length()),
    )


@contextmanager
def without_weights():
    """Build modules whose parameters have shapes, but no memory."""
    register = nn.Module.register_parameter

    def register_shape(self, name, parameter):
        register(self, name, parameter)
        if parameter is not None and parameter.device.type != 'meta':
            self._parameters[name] = nn.Parameter(
                parameter.to('meta'), parameter.requires_grad
            )

    nn.Module.register_parameter = register_shape
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _build_without_weights(cfg: dict) -> nn.Module:
    try:
        with without_weights():
            module = MODELS.build(ConfigDict(plain(cfg)))
    except RuntimeError:  # it computes with its weights while it is built
        module = MODELS.build(ConfigDict(plain(cfg)))
    module.eval()  # may return None: hosts override train()
    return module


def _run(module: nn.Module, x: Any, small: Any) -> tuple[Any, Any]:
    """Run on shapes alone, or on numbers where an operation needs them.

    Returns:
        The outputs, and which of the two inputs they are of.
    """
    with torch.no_grad():
        try:
            return module.to_empty(device='meta')(_move(x, 'meta')), x
        except Exception:  # compiled operations know no shapes
            return module.to_empty(device='cpu')(_move(small, 'cpu')), small


def _move(x: Any, device: str) -> Any:
    if isinstance(x, tuple):
        return tuple(item.to(device) for item in x)
    return x.to(device)


def _check_signature(module: nn.Module, kind: str) -> None:
    parameters = inspect.signature(module.forward).parameters.values()
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    if len(needed) > 1:
        raise SwapRefused(
            f'its backbone takes more than images ({", ".join(needed[1:])})',
            kind,
        )


def _levels_of(outputs: Any, side: int, kind: str) -> list[Level]:
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not outputs or not all(
        isinstance(out, Tensor) and out.ndim in (2, 4) for out in outputs
    ):
        raise SwapRefused('its backbone gives no plain maps', kind)
    return [
        Level(out.shape[1], _stride(out, side) if out.ndim == 4 else 0)
        for out in outputs
    ]


def _stride(out: Tensor, side: int) -> int:
    # To the next power of two: 224 / 15 is a map at stride 16.
    ratio = side / max(out.shape[2], 1)
    return 2 ** max(round(torch.tensor(ratio).log2().item()), 0)
