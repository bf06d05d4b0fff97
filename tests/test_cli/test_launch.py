"""Configs prepared for processes without a GPU."""

import signal
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from mmattn.cli import launch
from mmattn.config import replace_sync_norms
from mmattn.errors import UsageError


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')


@pytest.fixture
def gloo(monkeypatch) -> list:
    calls = []
    monkeypatch.setattr(launch, 'init_gloo', lambda *args: calls.append(args))
    return calls


def test_counts_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(
        launch.os, 'sched_getaffinity', lambda _: {0, 3, 5}, raising=False
    )
    assert launch.count_cores() == 3
    monkeypatch.delattr(launch.os, 'sched_getaffinity')
    monkeypatch.setattr(launch.os, 'cpu_count', lambda: 7)
    assert launch.count_cores() == 7
    monkeypatch.setattr(launch.os, 'cpu_count', lambda: None)
    assert launch.count_cores() == 1


def test_replaces_sync_norms_at_any_depth():
    model = Config(
        dict(
            a=dict(norm_cfg=dict(type='SyncBN', requires_grad=True)),
            b=[dict(norm=(dict(type='MMSyncBN'),)), dict(type='LN')],
        )
    )
    assert replace_sync_norms(model._cfg_dict) == 2
    assert model.a.norm_cfg == dict(type='BN', requires_grad=True)
    assert model.b[0].norm[0].type == 'BN'
    assert model.b[1].type == 'LN'


def test_one_process_gets_no_wrapper(gloo):
    cfg = Config(dict(model=dict(type='SyncBN'), launcher='none'))
    launch.prepare_cpu(cfg)
    assert cfg.model.type == 'BN'
    assert 'model_wrapper_cfg' not in cfg
    assert gloo == []


def test_several_processes_get_a_wrapper_without_a_device(gloo):
    cfg = Config(
        dict(
            model=dict(type='X'),
            launcher='pytorch',
            env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=60)),
        )
    )
    launch.prepare_cpu(cfg)
    assert gloo == [('pytorch', 60)]
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=False,
    )


def test_wrapper_of_the_config_is_kept(gloo):
    cfg = Config(
        dict(
            model=dict(type='X'),
            launcher='pytorch',
            find_unused_parameters=True,
            model_wrapper_cfg=dict(broadcast_buffers=True, static_graph=True),
        )
    )
    launch.prepare_cpu(cfg)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=True,
        find_unused_parameters=True,
        static_graph=True,
    )


def test_nothing_changes_with_a_gpu(monkeypatch, gloo):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    cfg = Config(dict(model=dict(type='SyncBN'), launcher='pytorch'))
    launch.prepare_cpu(cfg)
    assert cfg.to_dict() == dict(model=dict(type='SyncBN'), launcher='pytorch')
    assert gloo == []


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_cluster_launchers_need_gpus(launcher):
    with pytest.raises(
        UsageError,
        match=f'--launcher {launcher}',
    ):
        launch.init_gloo(launcher, 60)


def test_processes_must_come_from_torchrun(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(
        UsageError,
        match='lacks RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT',
    ):
        launch.init_gloo('pytorch', 60)


def test_group_ends_with_the_run(tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/meet', rank=0, world_size=1
    )
    launch.end_processes()
    assert not torch.distributed.is_initialized()
    launch.end_processes()  # nothing to end in a single process


def test_processes_end_whose_launcher_ended_before_they_started():
    """Their parent is another process already."""
    code = (
        'import os, time; os.environ["MMATTN_LAUNCHER"] = "1"\n'
        'from mmattn.cli.launch import end_with_launcher\n'
        'end_with_launcher(); time.sleep(60)'
    )
    done = subprocess.run([sys.executable, '-c', code], timeout=50)
    assert done.returncode == -signal.SIGKILL


def test_workers_end_whose_process_ended_before_they_started():
    code = (
        'import os, time\n'
        'from mmattn.cli.launch import end_workers_with_process\n'
        'end_workers_with_process()\n'
        'if os.fork() == 0: time.sleep(60)\n'
        'os._exit(0)'
    )
    # Waits for all processes that may write.
    subprocess.run(
        [sys.executable, '-c', code], capture_output=True, timeout=50
    )
