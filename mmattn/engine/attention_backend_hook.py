"""Which implementation of each operation a run takes, by config."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch.nn as nn
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner

from mmattn.ops import (
    forced_implementations,
    list_implementations,
    watch_choices,
)
from mmattn.registry import HOOKS


@HOOKS.register_module()
class AttentionBackendHook(Hook):
    """Choose the implementations of operations, and log what layers take.

    By default each takes the fastest that is safe where it runs; the hook is
    then there for the log. What is named and cannot run ends the run with
    what it lacks. After the run, failed or not, the choice is what it was
    before. Layers that name one themselves (``impl``) keep it.

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
        is_dict = isinstance(chosen, dict) and bool(chosen)
        wrong = is_dict and {
            key: name
            for key, name in chosen.items()
            if name not in table.get(key, [])
        }
        if not is_dict or wrong:
            raise ValueError(
                'AttentionBackendHook expects impl to be the name of an '
                'implementation, or of one for each operation, got '
                f'{wrong or impl!r}; there are {table}'
            )
        self.impl = chosen
        self._seen: WeakSet[BaseLoop] = WeakSet()

    def before_run(self, runner: Runner) -> None:
        """Have the loops run with the choice; log what layers take first.

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
        # Of each operation: what was forced before is not this run's choice.
        choices = {
            row.operation: self.impl.get(row.operation, 'auto')
            for row in list_implementations()
        }
        # A runner tells nobody that a run has failed: its loops do the
        # undoing. Those of another kind of run are not built yet.
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop) and loop not in self._seen:
                self._seen.add(loop)
                loop.run = _forcing(choices, loop.run)
        for name, layer in layers.items():
            _log_first_use(name, layer, runner.logger)


def _forcing(
    choices: dict[str, str], run: Callable[[], Any]
) -> Callable[[], Any]:
    """A function that runs with these choices, and then with those before."""

    def run_forced() -> Any:
        with forced_implementations(choices):
            return run()

    return run_forced


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
