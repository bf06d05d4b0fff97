"""Which implementation of each operation a run takes, by config."""

import torch.nn as nn
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmattn.ops import (
    force_implementation,
    list_implementations,
    watch_choices,
)
from mmattn.registry import HOOKS


@HOOKS.register_module()
class AttentionBackendHook(Hook):
    """Choose the implementations of operations, and log what layers take.

    By default each takes the fastest that is safe where it runs; the hook is
    then there for the log. What is named and cannot run ends the run with
    what it lacks. Layers that name one themselves (``impl``) keep it.

    Args:
        impl (str | dict[str, str]): A name for all operations that have an
            implementation of that name, or one for each operation, such as
            ``dict(window_attention='sdpa')``; see
            ``mmattn.ops.list_implementations``. Defaults to ``'auto'``.
    """

    priority = 'NORMAL'

    def __init__(self, impl: str | dict[str, str] = 'auto') -> None:
        table: dict[str, list[str]] = {}
        for row in list_implementations():
            table.setdefault(row.operation, ['auto']).append(row.name)
        chosen = impl
        if isinstance(impl, str):
            chosen = {key: impl for key in table if impl in table[key]}
        if not chosen or any(
            name not in table.get(key, []) for key, name in chosen.items()
        ):
            raise ValueError(
                'AttentionBackendHook expects impl to be the name of an '
                'implementation, or of one for each operation, got '
                f'{impl!r}; there are {table}'
            )
        self.impl = chosen

    def before_run(self, runner: Runner) -> None:
        """Set the choice, and log what each layer takes when it first runs.

        Raises:
            ValueError: If the model has no layer of this package to choose
                for.
        """
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        layers = {
            name: layer
            for name, layer in model.named_modules()
            if hasattr(layer, 'impl')
        }
        if not layers:
            raise ValueError(
                'AttentionBackendHook expects a model with attentions of '
                f'mmattn, got {type(model).__name__} without any; leave the '
                'hook out'
            )
        # All of them: a run that failed has not put its choice back.
        for row in list_implementations():
            name = self.impl.get(row.operation, 'auto')
            force_implementation(row.operation, name)
        for name, layer in layers.items():
            _log_first_use(name, layer, runner.logger)

    def after_run(self, runner: Runner) -> None:
        """Leave the choice to the table again."""
        for operation in self.impl:
            force_implementation(operation, 'auto')


def _log_first_use(name: str, layer: nn.Module, logger: MMLogger) -> None:
    taken: dict[str, str] = {}
    watch = watch_choices(
        lambda row: taken.setdefault(row.operation, row.name)
    )

    def enter(*args) -> None:
        before.remove()
        watch.__enter__()

    def leave(*args) -> None:
        after.remove()
        watch.__exit__(None, None, None)
        names = ', '.join(f'{key}: {value}' for key, value in taken.items())
        logger.info(f'{name} ({type(layer).__name__}) takes {names}')

    before = layer.register_forward_pre_hook(enter)
    after = layer.register_forward_hook(leave, always_call=True)
