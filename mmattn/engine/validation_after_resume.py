"""Validate a resumed checkpoint if the training was killed before it could."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

_KEY = 'validated_at'


class ValidationAfterResume(Hook):
    """Runs the validation that a killed training has missed.

    Checkpoints are written before the validation of the same step. mmengine
    resumes after that validation, so the best checkpoint, early stopping and
    schedules that follow a metric would miss it.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._validated = 0

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the last validated step."""
        checkpoint['meta'][_KEY] = self._validated

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read the last validated step."""
        meta = checkpoint.get('meta') or {}
        self._validated = meta.get(_KEY, -1)

    def before_val_epoch(self, runner: Runner) -> None:
        """Note the step, before hooks that save a checkpoint."""
        self._validated = _step(runner)

    def before_train(self, runner: Runner) -> None:
        """Validate if the checkpoint that was resumed was not validated."""
        loop, step = runner.train_loop, _step(runner)
        if runner.val_loop is None or self._validated in (step, -1):
            return
        if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
            return
        loop._decide_current_val_interval()
        last = loop.max_epochs if _is_by_epoch(runner) else loop.max_iters
        is_due = step % loop.val_interval == 0 or step == last
        if is_due and step >= max(loop.val_begin, 1):
            runner.logger.info(f'Validating step {step} after resuming')
            runner.val_loop.run()


def _is_by_epoch(runner: Runner) -> bool:
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def _step(runner: Runner) -> int:
    return runner.epoch if _is_by_epoch(runner) else runner.iter
