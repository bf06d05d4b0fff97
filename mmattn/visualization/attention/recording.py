"""Find the attention layers of a model and record their inputs."""

import inspect
import re
from collections.abc import Collection
from contextlib import ExitStack

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
    """Find the attention layers that can be explained, by dotted name.

    Args:
        model: Any model, wrapped or not.
        stages: Stages of mmattn's backbones; negative ones count from the
            last. Defaults to None: all, and layers outside of stages.
        blocks: Blocks of each stage, likewise. Defaults to None: all.

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
            f'{type(unwrap(model)).__name__} has no attention that can be '
            f'visualized; supported are {explained_names()}'
        )
    if stages is None and blocks is None:
        return layers
    matches = {name: _PLACE.search(name) for name in layers}
    places = {n: tuple(map(int, m.groups())) for n, m in matches.items() if m}
    depths = {stage: block + 1 for stage, block in sorted(places.values())}
    chosen = {
        name: layers[name]
        for name, (stage, block) in places.items()
        if _contains(stages, stage, max(depths) + 1)
        and _contains(blocks, block, depths[stage])
    }
    if not chosen:
        raise ValueError(
            f'no attention in stages {stages} and blocks {blocks}; the '
            f'model has (stage, block) {sorted(set(places.values()))}'
        )
    return chosen


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside of distributed and test-time augmentation wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _contains(chosen: Collection[int] | None, index: int, count: int) -> bool:
    return chosen is None or index in chosen or index - count in chosen


class CallRecorder(ExitStack):
    """Context manager that records the first call of each layer.

    Attributes:
        layers (dict[str, nn.Module]): The layers.
        inputs (dict[str, tuple[Tensor, ...]]): Arguments of each called
            layer, by its name, in the order of the calls.
        image_size (tuple[int, int] | None): Height and width of the
            backbone's input; of the model's input if it has no backbone.

    Args:
        model: The model.
        layers: The layers to record, by name.
    """

    def __init__(self, model: nn.Module, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = layers
        self.inputs: dict[str, tuple[Tensor, ...]] = {}
        self.image_size: tuple[int, int] | None = None
        names = {layer: name for name, layer in layers.items()}

        def keep_size(_: nn.Module, args: tuple, kwargs: dict) -> None:
            images = (*args, *kwargs.values())[0]
            self.image_size = self.image_size or tuple(images.shape[-2:])

        def keep(layer: nn.Module, args: tuple, kwargs: dict) -> None:
            call = inspect.signature(layer.forward).bind(*args, **kwargs)
            inputs = tuple(x.detach() for x in call.args)
            self.inputs.setdefault(names[layer], inputs)

        model = unwrap(model)
        hooks = [(getattr(model, 'backbone', model), keep_size)]
        for module, hook in hooks + [(layer, keep) for layer in names]:
            self.enter_context(
                module.register_forward_pre_hook(hook, with_kwargs=True)
            )
