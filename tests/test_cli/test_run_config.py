"""Command lines that do not fit are told so; those that do are applied."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner.checkpoint import _load_checkpoint
from mmengine.utils import digit_version

from mmattn import config
from mmattn.cli import run_config
from mmattn.errors import UsageError


def read(path, options=None, needs=('model',)):
    return config.read_config(str(path), options, needs, 'training')


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'swin_8xb2-1x_coco.py'
    path.write_text("model = dict(type='X', depths=[1, 2])\n")
    return path


def test_work_dir_comes_from_the_command_then_config_then_name(file):
    cfg = read(file)
    run_config.set_work_dir(cfg, None)
    assert cfg.work_dir == 'work_dirs/swin_8xb2-1x_coco'
    run_config.set_work_dir(cfg, None)
    assert cfg.work_dir == 'work_dirs/swin_8xb2-1x_coco'
    run_config.set_work_dir(cfg, 'here')
    assert cfg.work_dir == 'here'


def test_amp_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cpu')
    with pytest.raises(UsageError, match='--amp'):
        run_config.enable_amp(Config(dict(optim_wrapper=dict())))


def test_amp_keeps_what_the_config_says(monkeypatch):
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    cfg = Config(dict(optim_wrapper=dict(dtype='float16')))
    run_config.enable_amp(cfg)
    assert cfg.optim_wrapper == dict(
        type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic'
    )


def test_amp_takes_classes(monkeypatch):
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    cfg = Config(dict(optim_wrapper=dict(type=OptimWrapper)))
    run_config.enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


@pytest.mark.parametrize(
    'scope, dtype', [('mmseg', 'bfloat16'), ('mmdet', 'float16')]
)
def test_amp_takes_what_the_operations_have(scope, dtype, monkeypatch):
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    for name in ('is_available', 'is_bf16_supported'):
        monkeypatch.setattr(torch.cuda, name, lambda: True)
    cfg = Config(dict(default_scope=scope, optim_wrapper=dict()))
    run_config.enable_amp(cfg)
    assert cfg.optim_wrapper.dtype == dtype


def test_amp_refuses_other_wrappers(monkeypatch):
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    with pytest.raises(UsageError, match='got ApexOptimWrapper'):
        run_config.enable_amp(
            Config(dict(optim_wrapper=dict(type='ApexOptimWrapper')))
        )


def test_resume_and_load_from(tmp_path):
    checkpoint = tmp_path / 'epoch_1.pth'
    state = dict(message_hub={}, optimizer={}, state_dict={})
    torch.save(dict(state, meta=dict(epoch=1, iter=9, seed=5)), checkpoint)
    start = dict(load_from='old', resume=False, work_dir=str(tmp_path))
    for path in ('auto', str(checkpoint)):
        cfg = Config(start)
        run_config.set_start(cfg, path, None)
        assert (cfg.resume, cfg.load_from) == (True, str(checkpoint))
        assert cfg.randomness == dict(seed=5)
    torch.save(dict(a=torch.ones(1)), checkpoint)
    run_config.set_start(cfg, None, str(checkpoint))
    assert (cfg.resume, cfg.load_from) == (False, str(checkpoint))
    with pytest.raises(UsageError, match='--load-from'):
        run_config.set_start(cfg, 'auto', str(checkpoint))
    with pytest.raises(UsageError, match='--resume'):
        run_config.set_start(cfg, None, None, start_if_none=True)


def test_checkpoint_must_be_there():
    with pytest.raises(UsageError, match='gone.pth'):
        run_config.checkpoint_file('gone.pth')
    remote = 'https://example.org/a.pth'
    assert run_config.checkpoint_file(remote) == remote


def test_checkpoint_must_be_whole(tmp_path):
    whole, cut = tmp_path / 'whole.pth', tmp_path / 'cut.pth'
    torch.save({'a': torch.zeros(100)}, whole)
    cut.write_bytes(whole.read_bytes()[:-50])
    assert run_config.checkpoint_file(str(whole)) == str(whole)
    with pytest.raises(UsageError, match='cut.pth.* truncated'):
        run_config.checkpoint_file(str(cut))


@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.6.0'),
    reason='PyTorch cannot read mmengine files the safe way',
)
def test_checkpoints_run_no_code(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD')
    run_config.forbid_code_in_checkpoints()
    metrics = tmp_path / 'metrics.pth'
    torch.save([kind(1) for kind in (np.float32, np.int8, np.bool_)], metrics)
    assert _load_checkpoint(str(metrics)) == [1, 1, True]

    class Code:
        def __reduce__(self):
            return (tmp_path.joinpath, ('x',))

    torch.save(Code(), tmp_path / 'code.pth')
    with pytest.raises(pickle.UnpicklingError):
        _load_checkpoint(str(tmp_path / 'code.pth'))


def test_old_torch_warns_that_checkpoints_run_code(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.1.2')
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    with pytest.warns(UserWarning, match='2.6'):
        run_config.forbid_code_in_checkpoints()
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in run_config.os.environ


def test_pretrained_weights_must_be_there(tmp_path):
    init_cfg = dict(type='Pretrained', checkpoint='checkpoints/boat.pth')
    cfg = Config(dict(model=dict(heads=[dict(init_cfg=init_cfg)])))
    with pytest.raises(UsageError) as error:
        run_config.check_pretrained(cfg)
    message = str(error.value)
    assert message.startswith(
        'model.heads.0.init_cfg names the weights checkpoints/boat.pth, '
        'which do not exist'
    )
    assert 'tools/convert_checkpoint.py' in message
    assert '--cfg-options model.heads.0.init_cfg=None' in message
    cfg.model.heads[0].init_cfg.checkpoint = str(tmp_path)
    assert run_config.check_pretrained(cfg) == [str(tmp_path)]
    cfg.model.heads[0].init_cfg = None
    assert run_config.check_pretrained(cfg) == []


def data_config(**dataset) -> Config:
    return Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(
                dataset=dict(type='RepeatDataset', dataset=dict(dataset))
            ),
        )
    )


@pytest.mark.parametrize(
    'root, hint',
    [
        ('data/imagenet', 'put the data set'),
        ('data/digit_scenes/crops', 'python tools/make_digit_scenes.py'),
    ],
)
def test_data_must_be_there(root, hint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = data_config(type='ImageNet', data_root=root)
    with pytest.raises(
        UsageError, match=f'train_dataloader expects the folder {root}, .*'
    ) as error:
        run_config.check_data(cfg, ('train', 'val'))
    assert hint in str(error.value)
    (tmp_path / root).mkdir(parents=True)
    run_config.check_data(cfg, ('train', 'val'))


@pytest.mark.parametrize(
    'dataset',
    [
        dict(type='CIFAR10', data_root='data/gone'),  # downloads itself
        dict(type='ImageNet', data_root='s3://bucket'),
        dict(
            type='ImageNet',
            data_root='data/gone',
            backend_args=dict(backend='petrel'),
        ),
    ],
    ids=['downloaded', 'address', 'backend'],
)
def test_data_that_is_fetched_may_be_elsewhere(dataset):
    run_config.check_data(data_config(**dataset), ('train',))


def test_loaders_of_mmpretrain_get_its_defaults():
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(num_workers=0),
            val_dataloader=dict(num_workers=2, pin_memory='as it was'),
        )
    )
    run_config.fill_loaders(cfg)
    assert cfg.train_dataloader.collate_fn == dict(type='default_collate')
    assert not cfg.train_dataloader.persistent_workers
    assert cfg.val_dataloader.persistent_workers
    assert cfg.val_dataloader.pin_memory == 'as it was'


def test_loaders_of_others_stay():
    cfg = Config(dict(default_scope='mmdet', val_dataloader=dict()))
    run_config.fill_loaders(cfg)
    assert cfg.val_dataloader == dict()
