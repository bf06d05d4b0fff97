"""Optimize the model of a Runner that tests."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from .optimize import optimize_for_inference


class OptimizeForInferenceHook(Hook):
    """Test with a copy of the model that is faster on a CPU.

    It runs after the checkpoint and averaged weights are loaded.
    """

    priority = 'LOWEST'

    def before_test_epoch(self, runner: Runner) -> None:
        """Replace the model by the copy."""
        if is_model_wrapper(runner.model):
            runner.model.module = optimize_for_inference(runner.model.module)
        else:
            runner.model = optimize_for_inference(runner.model)
