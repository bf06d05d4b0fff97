"""Use the same buffers in all processes when a model is validated."""

from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


class BroadcastBuffers(Hook):
    """Copy the buffers of the first process to the others before validation.

    Running statistics of BN differ between processes, because nothing
    synchronizes buffers during training. A checkpoint holds those of the
    first process, so validating with them gives the score of the checkpoint.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        """Overwrite the buffers of the other processes."""
        if not runner.distributed:
            return
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        for buffer in model.buffers():
            broadcast(buffer, src=0)
