"""Scale the learning rate by the batch size, and log it."""

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from mmattn.errors import UsageError


def enable_lr_scaling(cfg: Config) -> None:
    """Ask the Runner to scale the learning rate by the batch size.

    Raises:
        UsageError: If the config lacks the batch size that its learning rate
            is for.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not isinstance(base, int) or base < 1:
        raise UsageError(
            '--auto-scale-lr expects auto_scale_lr.base_batch_size in the '
            f'config, got auto_scale_lr={cfg.get("auto_scale_lr")}; set it to '
            'the total batch size that the learning rate is for'
        )
    cfg.auto_scale_lr.enable = True


class LearningRateReport(Hook):
    """Log the learning rates that a training starts with.

    It runs after a checkpoint was resumed and so logs its learning rates.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Log the rates, and whether they fit the batch size."""
        wrappers = runner.optim_wrapper
        if not isinstance(wrappers, OptimWrapperDict):
            wrappers = {'': wrappers}
        for name, wrapper in wrappers.items():
            groups = wrapper.optimizer.param_groups
            base = [g.get('initial_lr', g['lr']) for g in groups]
            now = [g['lr'] for g in groups]
            of = f' of {name}' if name else ''
            runner.logger.info(
                f'Learning rate{of}: base {_span(base)}, now {_span(now)} at '
                f'iteration {runner.iter}.'
            )
        # From the config: a loader with a batch sampler does not know it.
        batch_size = runner.cfg.train_dataloader.batch_size
        runner.logger.info(
            describe_batch(runner.world_size, batch_size, runner.auto_scale_lr)
        )


def describe_batch(
    world_size: int, batch_size: int, auto_scale_lr: dict | None
) -> str:
    """Compare the batch size with that of the learning rate.

    Args:
        world_size: Number of processes.
        batch_size: Images per process.
        auto_scale_lr: The config's ``auto_scale_lr``.

    Returns:
        One line for the log.
    """
    settings = auto_scale_lr or {}
    base = settings.get('base_batch_size')
    batch = world_size * batch_size
    line = f'Batch: {world_size} x {batch_size} = {batch} images.'
    if base is None or base == batch:
        return line
    if settings.get('enable', False):
        return (
            f"{line} The config's learning rate is for {base} and was "
            f'multiplied by {batch / base:g}.'
        )
    return (
        f"{line} The config's learning rate is for {base} and was not "
        'scaled; use --auto-scale-lr to scale it.'
    )


def _span(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f'{low:g}' if low == high else f'{low:g} to {high:g}'
