"""Find the attention layers of a model and record what they are given."""

import inspect
import re
from collections.abc import Collection
from typing import Any

import torch.nn as nn
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor

from .explanations import explained_names, find_explanation

_PLACE = re.compile(r'(?:^|\.)stages\.(\d+)\..*?blocks\.(\d+)(?:\.|$)')


def select_layers(
    model: nn.Module,
    stages: Collection[int] | None = None,
    blocks: Collection[int] | None = None,
) -> dict[str, nn.Module]:
    """Attention layers that can be explained, by their dotted names.

    Args:
        model: Any model, wrapped or not.
        stages: Stages of our backbones, negative ones counted from the last.
            Defaults to None, all, with layers outside of stages.
        blocks: Blocks of each stage, likewise. Defaults to None, all.

    Raises:
        ValueError: If there are no such layers.
    """
    layers = {
        name: layer
        for name, layer in unwrap(model).named_modules()
        if find_explanation(layer) is not None
    }
    if not layers:
        raise ValueError(
            'pictures of attention expect a model with one of '
            f'{explained_names()}, got {type(unwrap(model)).__name__} without '
            'any'
        )
    if stages is None and blocks is None:
        return layers
    places = {name: _PLACE.search(name) for name in layers}
    places = {n: tuple(map(int, m.groups())) for n, m in places.items() if m}
    depths: dict[int, int] = {}
    for stage, block in places.values():
        depths[stage] = max(depths.get(stage, 0), block + 1)
    chosen = {
        name: layers[name]
        for name, (stage, block) in places.items()
        if _is_among(stage, stages, max(depths) + 1)
        and _is_among(block, blocks, depths[stage])
    }
    if not chosen:
        known = sorted(set(places.values()))
        raise ValueError(
            f'pictures of attention expect stages and blocks of {known} '
            f'(stage, block), got stages {stages} and blocks {blocks}'
            if known
            else 'pictures of attention expect no stages and blocks for a '
            f'model whose layers lie in none, {list(layers)}'
        )
    return chosen


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside of what distributes or augments it."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _is_among(index: int, chosen: Collection[int] | None, count: int) -> bool:
    return chosen is None or index in chosen or index - count in chosen


class CallRecorder:
    """Records the first call of layers of a model, in a ``with`` statement.

    Attributes:
        inputs (dict[str, tuple[Tensor, ...]]): Inputs of each layer that was
            called, by its name, in the order of the calls.
        image_size (tuple[int, int] | None): Height and width of the images
            that the backbone (a model without one: the model) was given.

    Args:
        model: The model; it is left as it was.
        layers: What to record, by name.
    """

    def __init__(self, model: nn.Module, layers: dict[str, nn.Module]) -> None:
        self.inputs: dict[str, tuple[Tensor, ...]] = {}
        self.image_size: tuple[int, int] | None = None
        self._model = unwrap(model)
        self._layers = layers
        self._handles: list[Any] = []

    def __enter__(self) -> 'CallRecorder':
        backbone = getattr(self._model, 'backbone', self._model)
        self._handles = [
            backbone.register_forward_pre_hook(
                self._keep_size, with_kwargs=True
            )
        ]
        for name, layer in self._layers.items():
            self._handles.append(
                layer.register_forward_pre_hook(
                    self._keeper(name), with_kwargs=True
                )
            )
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep_size(self, _: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.image_size is None:
            images = (*args, *kwargs.values())[0]
            self.image_size = tuple(images.shape[-2:])

    def _keeper(self, name: str) -> Any:
        def keep(layer: nn.Module, args: tuple, kwargs: dict) -> None:
            if name not in self.inputs:
                call = inspect.signature(layer.forward).bind(*args, **kwargs)
                self.inputs[name] = tuple(x.detach() for x in call.args)

        return keep
