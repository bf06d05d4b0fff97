"""Report the progress of a training and the time left."""

import time
from collections.abc import Callable, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner


class ProgressReport(Hook):
    """Reports progress in a line every ten seconds, and after validation.

    Args:
        report (Callable): Takes one line.
        metrics (dict): Label of each validation metric to report, by key.
    """

    priority = 'VERY_LOW'

    def __init__(
        self, report: Callable[[str], None], metrics: dict[str, str]
    ) -> None:
        self.report = report
        self.metrics = metrics
        self.started = self.reported = 0.0

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self.started = self.reported = time.monotonic()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | Sequence | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Report epoch, loss and time left."""
        now = time.monotonic()
        done, total = runner.iter + 1, runner.max_iters
        if now - self.reported < 10 and done < total:
            return
        self.reported = now
        left = (now - self.started) * (total - done) / done
        loss = '' if not outputs else f'  loss {float(outputs["loss"]):.3f}'
        self.report(
            f'  epoch {runner.epoch + 1}/{runner.max_epochs}  '
            f'step {done}/{total}{loss}  about {format_time(left)} left'
        )

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Report the metrics."""
        scores = ', '.join(
            f'{label} {metrics[key]:.3f}'
            for key, label in self.metrics.items()
            if key in (metrics or {})
        )
        self.report(f'  epoch {runner.epoch}/{runner.max_epochs}  {scores}')


def format_time(seconds: float) -> str:
    """Return minutes and seconds as ``m:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes}:{rest:02d}'
