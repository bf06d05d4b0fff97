"""Choose the implementation of each operation from a config."""

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

# Operations of earlier versions that are now PyTorch modules.
_REMOVED_OPERATIONS = (
    'linear',
    'perceptron',
    'layer_norm',
    'depthwise_convolution',
    'strided_convolution',
    'grouped_linear',
    'mixed_expansion',
)
_REMOVED_NAMES = ('parts', 'onednn')
_RENAMED_OPERATIONS = {'kernel_attention': 'random_feature_attention'}
# It has one implementation, so there is nothing to choose.
_ONLY_REFERENCE = 'random_feature_attention'


@HOOKS.register_module()
class AttentionBackendHook(Hook):
    """Choose the implementations of operations and log which layers use them.

    By default each operation uses the fastest implementation that can run,
    and the hook only logs it. A named implementation that cannot run ends the
    run with the reason. After the run, also a failed one, the previous choice
    is restored. Layers whose ``impl`` is not ``'auto'`` keep theirs.

    Args:
        impl (str | dict[str, str]): One name for all operations that have an
            implementation of that name, or a name for each operation, such
            as ``dict(window_attention='sdpa')``; see
            ``mmattn.ops.list_implementations``. Defaults to ``'auto'``.
    """

    priority = 'NORMAL'

    def __init__(self, impl: str | dict[str, str] = 'auto') -> None:
        available: dict[str, list[str]] = {}
        for row in list_implementations():
            available.setdefault(row.operation, ['auto']).append(row.name)
        available.setdefault(_ONLY_REFERENCE, ['auto', 'reference'])
        if isinstance(impl, dict):
            chosen = {
                _RENAMED_OPERATIONS.get(operation, operation): name
                for operation, name in impl.items()
            }
        else:
            chosen = {op: impl for op in available if impl in available[op]}
        unknown = {
            operation: name
            for operation, name in chosen.items()
            if name not in available.get(operation, [])
        }
        if not chosen or unknown:
            raise ValueError(
                f'impl={unknown or impl!r} of AttentionBackendHook is unknown'
                f'{_advice(unknown, impl)}; available are {available}'
            )
        chosen.pop(_ONLY_REFERENCE, None)
        self.impl = chosen
        self._seen: WeakSet[BaseLoop] = WeakSet()

    def before_run(self, runner: Runner) -> None:
        """Run the loops with the chosen implementations and log them.

        Raises:
            ValueError: If the model has no layers of mmattn.
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
                f'{type(model).__name__} has no attention of mmattn, so '
                'AttentionBackendHook has no effect; remove the hook'
            )
        # Set every operation: earlier choices do not apply to this run.
        choices = {
            row.operation: self.impl.get(row.operation, 'auto')
            for row in list_implementations()
        }
        # Runners have no hook point for a failed run, so the loops restore
        # the choice. Loops that are not built yet belong to another run.
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop) and loop not in self._seen:
                self._seen.add(loop)
                loop.run = _with_choices(choices, loop.run)
        for name, layer in layers.items():
            _log_first_use(name, layer, runner.logger)


def _advice(unknown: dict[str, str], impl: Any) -> str:
    if any(name in _REMOVED_OPERATIONS for name in unknown):
        return (
            ': linear layers, norms, MLPs and convolutions are PyTorch '
            'modules now. Remove the entry; for fast inference on a CPU use '
            'mmattn.optimize_for_inference(model)'
        )
    names = [impl, *unknown.values()]
    if any(name in names for name in _REMOVED_NAMES):
        return (
            ": the implementations 'parts' and 'onednn' were removed. Use "
            "'auto'; for fast inference on a CPU use "
            'mmattn.optimize_for_inference(model)'
        )
    return ''


def _with_choices(
    choices: dict[str, str], run: Callable[[], Any]
) -> Callable[[], Any]:
    def run_with_choices() -> Any:
        with forced_implementations(choices):
            return run()

    return run_with_choices


def _log_first_use(name: str, layer: nn.Module, logger: MMLogger) -> None:
    used: dict[str, str] = {}
    watch = watch_choices(lambda row: used.setdefault(row.operation, row.name))

    def start(*args) -> None:
        before.remove()
        watch.__enter__()

    def stop(*args) -> None:
        after.remove()
        watch.__exit__(None, None, None)
        names = ', '.join(f'{key}: {value}' for key, value in used.items())
        logger.info(f'{name} ({type(layer).__name__}) uses {names}')

    before = layer.register_forward_pre_hook(start)
    after = layer.register_forward_hook(stop, always_call=True)
