"""A training that is killed before a validation makes up for it."""

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmattn.engine.validation_after_resume import ValidationAfterResume


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x, mode='loss'):
        loss = self.layer(x).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


class Score(BaseMetric):
    default_prefix = None

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(acc=1.0)


class Killed(Exception):
    pass


class Watch(Hook):
    """Notes what is validated, and ends before one validation."""

    def __init__(self, kill_at=None):
        self.kill_at = kill_at
        self.validated, self.trained = [], []

    def before_val_epoch(self, runner):
        loop = runner.train_loop
        step = loop.epoch if 'Epoch' in type(loop).__name__ else loop.iter
        if step == self.kill_at:
            raise Killed
        self.validated.append(step)

    def after_train_iter(self, runner, *args, **kwargs):
        self.trained.append(runner.iter + 1)


def train(folder, kill_at=None, by_epoch=True, hook=True, **options):
    model = Model()
    loader = DataLoader([dict(x=x) for x in torch.randn(1, 4)])
    steps = dict(max_epochs=4) if by_epoch else dict(max_iters=4)
    checkpoint = dict(type='CheckpointHook', interval=1, by_epoch=by_epoch)
    save_best = options.pop('save_best', None)
    resume = options.pop('resume', False)
    runner = Runner(
        model,
        str(folder),
        train_dataloader=loader,
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=Evaluator(Score()),
        train_cfg=dict(
            by_epoch=by_epoch, **steps, **dict(val_interval=1) | options
        ),
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), 0.1)),
        default_hooks=dict(
            checkpoint=dict(checkpoint, save_best=save_best), logger=None
        ),
        resume=resume,
        log_level='ERROR',
        experiment_name=f'{folder}-{resume}'.replace('/', '-'),
    )
    if hook:
        runner.register_hook(ValidationAfterResume())
    watch = Watch(kill_at)
    runner.register_hook(watch, priority='HIGHEST')
    if kill_at is None:
        runner.train()
    else:
        with pytest.raises(Killed):
            runner.train()
    return watch


@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_validation_that_was_missed(tmp_path, by_epoch):
    first = train(tmp_path, kill_at=2, by_epoch=by_epoch)
    assert first.validated == [1]
    second = train(tmp_path, by_epoch=by_epoch, resume=True)
    assert second.validated == [2, 3, 4]
    assert second.trained == [3, 4]


def test_mmengine_alone_misses_it(tmp_path):
    """Else this hook is not needed any more."""
    train(tmp_path, kill_at=2, hook=False)
    assert train(tmp_path, hook=False, resume=True).validated == [3, 4]


def test_the_last_validation(tmp_path):
    train(tmp_path, kill_at=4)
    second = train(tmp_path, resume=True)
    assert (second.validated, second.trained) == ([4], [])


def test_steps_without_a_validation(tmp_path):
    train(tmp_path, kill_at=4, val_interval=2, val_begin=3)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    second = train(tmp_path, resume=True, val_interval=2, val_begin=3)
    assert second.validated == [4]


def test_a_validation_that_is_in_the_checkpoint(tmp_path):
    """The best checkpoint makes mmengine save the last one again."""
    train(tmp_path, kill_at=2, save_best='acc')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    second = train(tmp_path, save_best='acc', resume=True)
    assert second.validated == [2, 3, 4]


def test_checkpoints_of_other_tools(tmp_path):
    train(tmp_path, kill_at=2, hook=False)
    assert train(tmp_path, resume=True).validated == [3, 4]
