"""A training that is killed and resumed equals an uninterrupted one."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner

from mmattn.engine.reproducible import (
    SeededIndex,
    derive_seed,
    list_exceptions,
    seed_samples,
)
from mmattn.engine.training import build_runner


def draw():
    return np.random.rand()  # noqa: NPY002, as transforms do


@DATASETS.register_module(force=True)
class Noise(BaseDataset):
    """Samples that draw from all generators, and from another sample."""

    def load_data_list(self):
        return [dict(value=float(i)) for i in range(12)]

    def prepare_data(self, idx):
        if random.random() < 0.1:
            return None  # takes another one
        value = self.get_data_info(idx)['value'] + self._rand_another() / 100
        draws = [random.random(), draw(), torch.rand(1).item()]
        return dict(inputs=torch.tensor([value, *draws]))


@METRICS.register_module(force=True)
class Draws(BaseMetric):
    """Disturbs the generators of the main process."""

    default_prefix = None

    def process(self, data_batch, data_samples):
        self.results.append(random.random() + draw())

    def compute_metrics(self, results):
        return dict(acc=sum(results))


# Older mmengine cannot print classes in a config.
@MODELS.register_module('ReproducibleModel', force=True)
class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.drop = torch.nn.Dropout(0.3)

    def forward(self, inputs, mode='loss'):
        x = torch.stack(inputs) * random.uniform(0.5, 1.5)
        out = self.norm(self.drop(self.layer(x)))
        loss = (out - draw()).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


def config(work_dir, by_epoch=True, workers=0, persistent=False, steps=None):
    sampler = 'DefaultSampler' if by_epoch else 'InfiniteSampler'
    loader = dict(
        dataset=dict(type='Noise'),
        sampler=dict(type=sampler, shuffle=True),
        batch_size=4,
        num_workers=workers,
        persistent_workers=persistent,
    )
    steps = steps or (3 if by_epoch else 8)
    loop = dict(max_epochs=steps) if by_epoch else dict(max_iters=steps)
    return dict(
        model=dict(type='ReproducibleModel'),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=by_epoch, val_interval=1, **loop),
        val_dataloader=dict(
            loader,
            sampler=dict(type='DefaultSampler'),
            num_workers=0,
            persistent_workers=False,
        ),
        val_cfg=dict(),
        val_evaluator=dict(type='Draws'),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', interval=1, by_epoch=by_epoch
            ),
            logger=None,
        ),
        randomness=dict(seed=3),
        log_level='ERROR',
        experiment_name=str(work_dir).replace('/', '-') + str(steps),
    )


def train(cfg, **more):
    runner = build_runner(dict(cfg, **more))
    runner.train()
    return runner.model.state_dict()


def check_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize(
    'workers, persistent', [(0, False), (2, False), (2, True)]
)
def test_resumed_equals_uninterrupted(tmp_path, by_epoch, workers, persistent):
    options = dict(by_epoch=by_epoch, workers=workers, persistent=persistent)
    whole = train(config(tmp_path / 'whole', **options))
    name = 'epoch_1.pth' if by_epoch else 'iter_4.pth'
    checkpoint = str(tmp_path / 'whole' / name)
    cfg = config(tmp_path / 'resumed', **options)
    resumed = train(cfg, resume=True, load_from=checkpoint)
    check_equal(whole, resumed)


def test_the_number_of_workers_does_not_matter(tmp_path):
    first, second = (
        train(config(tmp_path / str(n), workers=n, steps=2)) for n in (0, 2)
    )
    check_equal(first, second)


def test_another_seed_gives_another_training(tmp_path):
    first, second = (
        train(config(tmp_path / str(n), steps=1), randomness=dict(seed=n))
        for n in (3, 4)
    )
    assert not torch.equal(first['layer.weight'], second['layer.weight'])


def test_epochs_and_positions_draw_differently(tmp_path):
    runner = Runner.from_cfg(config(tmp_path))
    loader = runner.build_dataloader(runner._train_dataloader, seed=1)
    seed_samples(loader, 1)
    assert isinstance(loader.dataset, Noise)
    assert type(loader.dataset).__name__ == 'Noise'
    epochs = []
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        epochs.append([x.seed for x in loader.sampler])
    assert epochs[0] == epochs[2]
    assert len({*epochs[0], *epochs[1]}) == 24


def test_seeded_indices_and_data_sets_are_pickled(tmp_path):
    import pickle

    index = pickle.loads(pickle.dumps(SeededIndex(5, 7)))
    assert (index, index.seed) == (5, 7)
    runner = Runner.from_cfg(config(tmp_path))
    loader = runner.build_dataloader(runner._train_dataloader, seed=1)
    seed_samples(loader, 1)
    copy = pickle.loads(pickle.dumps(loader.dataset))
    pair = [data[SeededIndex(2, 9)]['inputs'] for data in (copy, copy)]
    assert torch.equal(*pair)
    assert torch.equal(pair[0], loader.dataset[SeededIndex(2, 9)]['inputs'])


def test_exceptions_are_listed():
    loader = dict(dataset=dict(pipeline=[dict(type='mmdet.CachedMosaic')]))
    cfg = dict(
        train_dataloader=loader, optim_wrapper=dict(accumulative_counts=2)
    )
    found = ' '.join(list_exceptions(cfg))
    assert 'CachedMosaic' in found and 'accumulated' in found
    assert derive_seed(1, 2) != derive_seed(12)


def main(folder, resume, *options):
    """Train in one of two processes."""
    torch.distributed.init_process_group('gloo')
    by_epoch, workers, persistent = map(int, options)
    cfg = config(Path(folder) / resume, by_epoch, workers, bool(persistent))
    cfg['launcher'] = 'pytorch'
    cfg['model_wrapper_cfg'] = dict(
        type='MMDistributedDataParallel', device_ids=None
    )
    if resume == 'resumed':
        name = 'epoch_1.pth' if by_epoch else 'iter_4.pth'
        cfg |= dict(resume=True, load_from=str(Path(folder, 'whole', name)))
    train(cfg)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    'by_epoch, workers, persistent',
    [
        (True, 2, True),
        pytest.param(True, 0, False, marks=slow),
        pytest.param(True, 2, False, marks=slow),
        pytest.param(False, 0, False, marks=slow),
        pytest.param(False, 2, False, marks=slow),
        pytest.param(False, 2, True, marks=slow),
    ],
)
def test_two_processes(tmp_path, by_epoch, workers, persistent):
    options = [str(int(x)) for x in (by_epoch, workers, persistent)]
    for name in ('whole', 'resumed'):
        subprocess.run(
            [
                *(sys.executable, '-m', 'torch.distributed.run'),
                *('--nproc_per_node=2', '--standalone'),
                *(__file__, tmp_path, name, *options),
            ],
            check=True,
            capture_output=True,
            timeout=200,
        )
    last = 'epoch_3.pth' if by_epoch else 'iter_8.pth'
    check_equal(
        *(
            torch.load(tmp_path / name / last, weights_only=False)[
                'state_dict'
            ]
            for name in ('whole', 'resumed')
        )
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
