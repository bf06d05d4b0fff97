from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
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

    def projections(self):
        return [self.first.attn.projection, self.second.attn.projection]


def train(tmp_path, iterations, interval, resume=False, other_hooks=()):
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
            dict(type='mmattn.RedrawProjectionHook', interval=interval),
            *other_hooks,
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
    return runner


def test_redraws_every_interval_and_every_layer(tmp_path):
    start = ENLTB(4).attn.projection
    same = train(tmp_path / 'a', iterations=2, interval=3).model
    assert all(torch.equal(x, start) for x in same.projections())
    model = train(tmp_path / 'b', iterations=3, interval=3).model
    first, second = model.projections()
    assert not torch.equal(first, start)
    assert not torch.equal(first, second)
    later = train(tmp_path / 'c', iterations=6, interval=3).model
    assert not torch.equal(first, later.projections()[0])


def test_a_resumed_training_redraws_the_same_features(tmp_path):
    straight = train(tmp_path / 'a', iterations=4, interval=2).model
    train(tmp_path / 'b', iterations=2, interval=2)
    resumed = train(tmp_path / 'b', iterations=4, interval=2, resume=True)
    pairs = zip(resumed.model.projections(), straight.projections())
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize('priority', ['VERY_HIGH', 'NORMAL', 'LOW'])
@pytest.mark.parametrize('begin_iter', [0, 3])
def test_averaged_models_get_copies_of_the_features(
    tmp_path, priority, begin_iter
):
    ema = dict(
        type='EMAHook',
        momentum=0.3,
        update_buffers=True,
        begin_iter=begin_iter,
        priority=priority,
    )
    train(tmp_path, iterations=4, interval=2, other_hooks=[ema])
    runner = train(
        tmp_path, iterations=7, interval=2, resume=True, other_hooks=[ema]
    )
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    averaged = hook.ema_model.module
    for mine, theirs in zip(averaged.projections(), Model().projections()):
        assert not torch.equal(mine, theirs)  # it was redrawn
    pairs = zip(averaged.projections(), runner.model.projections())
    assert all(torch.equal(*pair) for pair in pairs)
    for rows in averaged.projections():
        gram = rows.double() @ rows.double().T
        torch.testing.assert_close(
            gram, gram.diagonal().diag(), atol=1e-5, rtol=0
        )
    # The other tensors are averaged.
    key = 'first.attn.q.weight'
    ours, theirs = averaged.state_dict(), runner.model.state_dict()
    assert not torch.equal(ours[key], theirs[key])


def test_a_wrapped_model(process_group):
    drawn = []
    for wrap in (nn.Identity(), nn.parallel.DistributedDataParallel):
        model = Model()
        wrapped = wrap(model) if isinstance(wrap, type) else model
        runner = SimpleNamespace(model=wrapped, iter=4, hooks=[])
        RedrawProjectionHook(interval=5).after_train_iter(runner, 4)
        drawn.append(model.first.attn.projection)
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], ENLTB(4).attn.projection)


def test_a_model_without_linear_attention():
    runner = SimpleNamespace(model=nn.Linear(2, 2), hooks=[])
    with pytest.raises(ValueError, match='EfficientNonLocalAttention'):
        RedrawProjectionHook().before_train(runner)


def test_wrong_interval():
    with pytest.raises(ValueError, match='interval'):
        RedrawProjectionHook(interval=0)
