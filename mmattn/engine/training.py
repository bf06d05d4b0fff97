"""What every training that mmattn's tools start has in common."""

from mmengine.runner import Runner

from .atomic_checkpoints import make_checkpoints_atomic
from .reproducible import make_reproducible
from .validation_after_resume import ValidationAfterResume


def prepare_training(runner: Runner) -> None:
    """Let a training survive being killed at any time.

    Checkpoints are written atomically, and a resumed training equals an
    uninterrupted one.

    Args:
        runner: A runner that has not started.
    """
    make_checkpoints_atomic(runner)
    make_reproducible(runner)
    runner.register_hook(ValidationAfterResume())
