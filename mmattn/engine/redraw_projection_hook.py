"""New random features for the linear attentions, now and then."""

import zlib

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmattn.attentions import EfficientNonLocalAttention
from mmattn.registry import HOOKS


@HOOKS.register_module()
class RedrawProjectionHook(Hook):
    """Redraw the random features of the model's linear attentions.

    Source: https://arxiv.org/abs/2009.14794, section 4.2. Weights that see
    several draws do not fit themselves to the errors of one. The draw follows
    from the layer's name and the iteration: it is the same in all processes
    and after a resumed training.

    Args:
        interval (int): Training iterations from one draw to the next.
            Defaults to 1000.
    """

    priority = 'NORMAL'

    def __init__(self, interval: int = 1000) -> None:
        if interval < 1:
            raise ValueError(
                f'RedrawProjectionHook expects interval >= 1, got {interval}'
            )
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Check that the model has something to redraw.

        Raises:
            ValueError: If it has no ``EfficientNonLocalAttention``.
        """
        if not _linear_attentions(runner):
            raise ValueError(
                'RedrawProjectionHook expects a model with '
                'EfficientNonLocalAttention layers, got '
                f'{type(runner.model).__name__} without any; leave the hook '
                'out'
            )

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Redraw where the interval ends."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        for name, layer in _linear_attentions(runner).items():
            seed = zlib.crc32(f'{name}:{runner.iter + 1}'.encode())
            layer.redraw_projection(seed)


def _linear_attentions(
    runner: Runner,
) -> dict[str, EfficientNonLocalAttention]:
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, EfficientNonLocalAttention)
    }
