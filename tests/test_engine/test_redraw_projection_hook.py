from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmattn.engine import RedrawProjectionHook
from mmattn.plugins import ENLTB


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.first, self.second = ENLTB(4), ENLTB(4)

    def forward(self, x, mode='loss'):
        return dict(loss=self.second(self.first(x)).square().mean())


def train(tmp_path, iterations, interval, resume=False):
    model = Model()
    torch.manual_seed(1)
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=torch.utils.data.DataLoader(
            [dict(x=x) for x in torch.randn(8, 4, 3, 3)]
        ),
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), 0.1)),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        custom_hooks=[
            dict(type='mmattn.RedrawProjectionHook', interval=interval)
        ],
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=iterations
            ),
            logger=None,
        ),
        resume=resume,
        log_level='ERROR',
        experiment_name=str(tmp_path).replace('/', '-') + str(resume),
    )
    runner.train()
    return [model.first.attn.projection, model.second.attn.projection]


def test_redraws_every_interval_and_every_layer(tmp_path):
    start = ENLTB(4).attn.projection
    for same in train(tmp_path / 'a', iterations=2, interval=3):
        assert torch.equal(same, start)
    first, second = train(tmp_path / 'b', iterations=3, interval=3)
    assert not torch.equal(first, start)
    assert not torch.equal(first, second)
    third, _ = train(tmp_path / 'c', iterations=6, interval=3)
    assert not torch.equal(first, third)


def test_a_resumed_training_draws_what_it_would_have_drawn(tmp_path):
    straight = train(tmp_path / 'a', iterations=4, interval=2)
    train(tmp_path / 'b', iterations=2, interval=2)
    resumed = train(tmp_path / 'b', iterations=4, interval=2, resume=True)
    assert all(map(torch.equal, resumed, straight))


def test_a_wrapper_changes_nothing(process_group):
    drawn = []
    for wrap in (nn.Identity(), nn.parallel.DistributedDataParallel):
        model = Model()
        wrapped = wrap(model) if isinstance(wrap, type) else model
        runner = SimpleNamespace(model=wrapped, iter=4)
        RedrawProjectionHook(interval=5).after_train_iter(runner, 4)
        drawn.append(model.first.attn.projection)
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], ENLTB(4).attn.projection)


def test_a_model_without_such_layers():
    runner = SimpleNamespace(model=nn.Linear(2, 2))
    with pytest.raises(
        ValueError,
        match='RedrawProjectionHook expects a model with '
        'EfficientNonLocalAttention layers, got Linear without any',
    ):
        RedrawProjectionHook().before_train(runner)


def test_wrong_interval():
    with pytest.raises(
        ValueError, match='RedrawProjectionHook expects interval >= 1, got 0'
    ):
        RedrawProjectionHook(interval=0)
