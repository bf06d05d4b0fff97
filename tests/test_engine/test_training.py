"""The runner that all tools train with."""

import mmengine
import pytest
from mmengine.model import BaseModel
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import FlexibleRunner, Runner

from mmattn.engine.training import build_runner
from mmattn.errors import UsageError


@RUNNERS.register_module(force=True)
class MyRunner(Runner):
    """A runner of a user."""


def config(tmp_path, **kwargs):
    return dict(
        model=dict(type='BaseModel'),
        work_dir=str(tmp_path),
        log_level='ERROR',
        experiment_name=str(tmp_path).replace('/', '-'),
        **kwargs,
    )


@pytest.mark.parametrize('kind', ['FlexibleRunner', FlexibleRunner])
def test_runners_that_may_lose_checkpoints_are_refused(tmp_path, kind):
    with pytest.raises(UsageError, match='FlexibleRunner.*runner_type'):
        build_runner(config(tmp_path, runner_type=kind))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kind', ['MyRunner', MyRunner])
def test_own_runners(tmp_path, kind, monkeypatch):
    if kind is MyRunner and mmengine.__version__ == '0.10.7':
        pytest.skip('this mmengine cannot print classes in a config')
    monkeypatch.setitem(MODELS.module_dict, 'BaseModel', BaseModel)
    monkeypatch.setattr(BaseModel, '__abstractmethods__', frozenset())
    runner = build_runner(config(tmp_path, runner_type=kind))
    assert type(runner) is MyRunner
    hooks = {type(hook).__name__ for hook in runner.hooks}
    assert {'SeedHook', 'ValidationAfterResume', 'BroadcastBuffers'} <= hooks
    assert runner.save_checkpoint != Runner.save_checkpoint
