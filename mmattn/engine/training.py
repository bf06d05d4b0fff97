"""What every training that mmattn's tools start has in common."""

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmattn.errors import UsageError

from .atomic_checkpoints import make_checkpoints_atomic
from .buffers import BroadcastBuffers
from .reproducible import make_reproducible
from .validation_after_resume import ValidationAfterResume


def build_runner(cfg: Config | dict) -> Runner:
    """Build a runner whose training survives being killed at any time.

    Checkpoints are written atomically, and a resumed training equals an
    uninterrupted one.

    Args:
        cfg: The config of a training.

    Raises:
        UsageError: If ``runner_type`` is no subclass of mmengine's Runner.
    """
    kind = cfg.get('runner_type', Runner)
    if isinstance(kind, str):
        kind = RUNNERS.get(kind)
    if kind is None or not issubclass(kind, Runner):
        raise UsageError(
            f'runner_type {cfg["runner_type"]} is not supported, because its '
            'checkpoints may be lost or incomplete if a training is killed; '
            'remove runner_type and strategy from the config, or train with '
            'the tools of your codebase'
        )
    runner = kind.from_cfg(cfg)
    make_checkpoints_atomic(runner)
    make_reproducible(runner)
    runner.register_hook(ValidationAfterResume())
    runner.register_hook(BroadcastBuffers())
    return runner
