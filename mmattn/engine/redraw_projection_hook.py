"""Redraw the random features of linear attention during training."""

import zlib

import torch.nn as nn
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel, is_model_wrapper
from mmengine.runner import Runner

from mmattn.attentions import EfficientNonLocalAttention
from mmattn.registry import HOOKS


@HOOKS.register_module()
class RedrawProjectionHook(Hook):
    """Redraw the random features of the model's linear attentions.

    Source: https://arxiv.org/abs/2009.14794, section 4.2. Weights that see
    several draws do not adapt to the errors of one. The seed of a draw
    follows from the layer's name and the iteration, so all processes and
    resumed trainings draw the same features.

    Averaged models (``EMAHook``) get copies of the features: an average of
    two draws would not be orthogonal.

    Args:
        interval (int): Training iterations between draws. Defaults to 1000.
    """

    priority = 'NORMAL'

    def __init__(self, interval: int = 1000) -> None:
        if interval < 1:
            raise ValueError(
                f'RedrawProjectionHook expects interval >= 1, got {interval}'
            )
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Exclude the features from averaging.

        Raises:
            ValueError: If the model has no ``EfficientNonLocalAttention``.
        """
        layers = _linear_attentions(runner.model)
        if not layers:
            raise ValueError(
                f'{type(runner.model).__name__} has no '
                'EfficientNonLocalAttention, so RedrawProjectionHook has no '
                'effect; remove the hook'
            )
        for averaged in _averaged_models(runner):
            for name in layers:
                averaged.avg_parameters.pop(f'{name}.projection', None)
        self._copy_to_averaged(runner)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Redraw at the end of each interval."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        for name, layer in _linear_attentions(runner.model).items():
            seed = zlib.crc32(f'{name}:{runner.iter + 1}'.encode())
            layer.redraw_projection(seed)
        self._copy_to_averaged(runner)

    def _copy_to_averaged(self, runner: Runner) -> None:
        layers = _linear_attentions(runner.model)
        for averaged in _averaged_models(runner):
            for name, layer in _linear_attentions(averaged.module).items():
                layer.projection.copy_(layers[name].projection)


def _linear_attentions(
    model: nn.Module,
) -> dict[str, EfficientNonLocalAttention]:
    model = model.module if is_model_wrapper(model) else model
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, EfficientNonLocalAttention)
    }


def _averaged_models(runner: Runner) -> list[BaseAveragedModel]:
    models = (getattr(hook, 'ema_model', None) for hook in runner.hooks)
    return [model for model in models if isinstance(model, BaseAveragedModel)]
