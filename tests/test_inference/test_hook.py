"""The hook behind ``tools/test.py --optimize``."""

import pytest
import torch
import torch.distributed as dist
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmattn.inference.hook import OptimizeForInferenceHook
from mmattn.inference.kernels import LIBRARY
from mmattn.inference.modules import FusedMLP
from mmattn.layers import MLP

pytestmark = pytest.mark.skipif(
    LIBRARY.why_not() is not None, reason=str(LIBRARY.why_not())
)


class Model(BaseModel):
    def __init__(self, value):
        super().__init__()
        self.mlp = MLP(8, 16)
        for x in self.parameters():
            nn.init.constant_(x, value)

    def forward(self, x, mode):
        return self.mlp(x)

    def test_step(self, data):
        return self(data, 'predict')


class Mean(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [x.mean().item() for x in data_samples]

    def compute_metrics(self, results):
        return dict(mean=sum(results) / len(results))


@pytest.fixture
def run(tmp_path):
    images = DataLoader([torch.ones(8)] * 4, batch_size=2)

    def run(model, optimize, **kwargs):
        runner = Runner(
            model,
            str(tmp_path),
            test_dataloader=images,
            test_cfg=dict(),
            test_evaluator=Mean(),
            experiment_name=f'{optimize}',
            default_hooks=dict(logger=None, checkpoint=None),
            **kwargs,
        )
        if optimize:
            runner.register_hook(OptimizeForInferenceHook())
        return runner.test()['mean'], runner.model

    return run


def test_optimizes_the_loaded_weights(run, tmp_path):
    checkpoint = str(tmp_path / 'model.pth')
    torch.save(dict(state_dict=Model(0.2).state_dict()), checkpoint)
    want, _ = run(Model(0.1), False, load_from=checkpoint)
    got, model = run(Model(0.1), True, load_from=checkpoint)
    assert type(model.mlp) is FusedMLP
    assert got == pytest.approx(want, rel=1e-6)


def test_works_beside_averaged_weights(run, tmp_path):
    checkpoint = str(tmp_path / 'model.pth')
    torch.save(dict(state_dict=Model(0.2).state_dict()), checkpoint)
    options = dict(load_from=checkpoint, custom_hooks=[dict(type='EMAHook')])
    want, _ = run(Model(0.1), False, **options)
    got, model = run(Model(0.1), True, **options)
    assert type(model.mlp) is FusedMLP
    assert got == pytest.approx(want, rel=1e-6)


def test_optimizes_inside_a_wrapper(run):
    dist.init_process_group(
        'gloo', store=dist.HashStore(), rank=0, world_size=1
    )
    try:
        wrapper = MMDistributedDataParallel(Model(0.1))
        OptimizeForInferenceHook().before_test_epoch(
            runner := type('Runner', (), {'model': wrapper})
        )
        assert runner.model is wrapper
        assert type(wrapper.module.mlp) is FusedMLP
        x = torch.ones(2, 8)
        torch.testing.assert_close(
            wrapper.test_step(x), Model(0.1).test_step(x)
        )
    finally:
        dist.destroy_process_group()
