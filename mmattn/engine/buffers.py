"""One set of buffers for all processes when a model is validated."""

from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


class BroadcastBuffers(Hook):
    """Give every process the buffers of the first before a validation.

    Running statistics of BN differ between processes, since nothing
    synchronises buffers in training. A checkpoint holds those of the first
    process: validating with the same ones gives the score that the
    checkpoint has when it is tested.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        """Overwrite the buffers of the other processes."""
        if not runner.distributed:
            return
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        for buffer in model.buffers():
            broadcast(buffer, src=0)
