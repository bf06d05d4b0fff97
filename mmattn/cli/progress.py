"""A line now and then: how far a training is, and how long it still takes."""

import time
from collections.abc import Callable, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner


class ProgressReport(Hook):
    """Reports progress in words that need no knowledge of the framework.

    It is built with a function and so is no config's business: hand it to
    ``runner.register_hook``.

    Args:
        report (Callable): Takes one line.
        metrics (dict): Key of each validation metric to report, and what to
            call it.
        interval (float): Least time between two lines of training, in
            seconds. Defaults to 10.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        report: Callable[[str], None],
        metrics: dict[str, str],
        interval: float = 10.0,
    ) -> None:
        self.report = report
        self.metrics = metrics
        self.interval = interval
        self.started = self.told = 0.0

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self.started = self.told = time.monotonic()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | Sequence | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Tell epoch, loss and time left, if the last line is old enough."""
        now = time.monotonic()
        done, total = runner.iter + 1, runner.max_iters
        if now - self.told < self.interval and done < total:
            return
        self.told = now
        left = (now - self.started) * (total - done) / done
        loss = '' if not outputs else f'  loss {float(outputs["loss"]):.3f}'
        self.report(
            f'  epoch {runner.epoch + 1}/{runner.max_epochs}  '
            f'step {done}/{total}{loss}  about {format_time(left)} left'
        )

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Tell the metrics."""
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
