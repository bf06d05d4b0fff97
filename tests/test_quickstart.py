"""The quickstart, on few images and for one epoch."""

import errno
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mmattn import zoo

TOOL = Path(__file__).resolve().parents[1] / 'tools' / 'quickstart.py'


@pytest.fixture(scope='module')
def quickstart():
    """The tool as a module: starting it anew takes seconds each time."""
    spec = importlib.util.spec_from_file_location('quickstart', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(quickstart, *args: str):
    return quickstart.parse_args(list(args))


LAST_LINES = dict(
    cls=r'top1=[01]\.\d{3} train_seconds=\d+',
    seg=r'mIoU=[01]\.\d{3} train_seconds=\d+',
    det=r'bbox_mAP=[01]\.\d{3} segm_mAP=[01]\.\d{3} train_seconds=\d+',
)


def test_all_tasks_end_with_pictures_and_a_result(few_digits, tmp_path):
    command = [sys.executable, str(TOOL), '--task', 'all', '--epochs', '1']
    done = subprocess.run(
        [*command, '--data-root', str(few_digits)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ''  # warnings go to the log
    lines = done.stdout.splitlines()
    results = [line for line in lines if 'train_seconds=' in line]
    assert len(results) == 3
    for line, pattern in zip(results, LAST_LINES.values()):
        assert re.fullmatch(pattern, line), line
    assert lines[-1] == results[-1]  # that of the detector
    assert not [line for line in lines if 'Warning' in line]
    folders = sorted((tmp_path / 'work_dirs' / 'quickstart').iterdir())
    assert [folder.name.split('_')[:2] for folder in folders] == [
        ['cls', 'boat-swin'],
        ['det', 'boat-swin'],
        ['seg', 'boat-swin'],
    ]
    for folder in folders:
        with Image.open(folder / 'predictions.png') as picture:
            assert picture.format == 'PNG'
            assert min(picture.size) > 100
        assert (folder / 'epoch_1.pth').is_file()
        log = (folder / 'log.txt').read_text()
        assert 'Epoch(train)' in log
        assert 'a resumed training equals an uninterrupted one' in log
        assert f'{folder.name}/predictions.png' in done.stdout


def test_every_task_has_a_config_for_every_backbone(quickstart, tmp_path):
    data = str(tmp_path / 'my digits')
    for task in quickstart.TASKS:
        for backbone in quickstart.BACKBONES:
            args = parse(
                quickstart,
                *('--task', task, '--backbone', backbone, '--seed', '5'),
                *('--epochs', '3', '--data-root', data),
            )
            cfg = quickstart.build_config(args, tmp_path / 'work')
            assert cfg.train_cfg.max_epochs == 3
            assert cfg.param_scheduler[-1].end == 3
            assert cfg.param_scheduler[-1].begin <= 2
            assert cfg.randomness.seed == 5
            assert cfg.work_dir == str(tmp_path / 'work')
            assert 'data/digit_scenes' not in cfg.pretty_text
            for split in ('train', 'val', 'test'):
                dataset = cfg[f'{split}_dataloader'].dataset
                dataset = dataset.get('dataset', dataset)
                assert dataset.data_root.startswith(data)


def test_a_former_result_is_not_overwritten(quickstart, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('mine').mkdir()
    Path('mine', 'epoch_8.pth').write_text('precious')
    args = parse(quickstart, '--work-dir', 'mine')
    with pytest.raises(
        quickstart.UsageError, match='new or empty folder, got mine'
    ):
        quickstart.make_work_dir(args)
    default = parse(quickstart)
    folders = {quickstart.make_work_dir(default) for _ in range(3)}
    assert len(folders) == 3


def test_a_foreign_data_root_is_not_overwritten(quickstart, tmp_path):
    (tmp_path / 'a.jpg').write_text('')
    with pytest.raises(
        quickstart.UsageError, match='(?s)digit scenes.*--data-root'
    ):
        quickstart.prepare_data(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ['a.jpg']


def test_digit_scenes_of_another_size_are_taken(
    quickstart, few_digits, capsys
):
    quickstart.prepare_data(str(few_digits))
    assert 'already there' in capsys.readouterr().out


@pytest.mark.parametrize(
    'args, message',
    [
        (['--backbone', 'resnet'], "'resnet'.*boat-swin.*swin"),
        (['--task', 'pose'], "'pose'.*cls.*seg.*det.*all"),
        (['--epochs', '0'], '--epochs .*1, got 0'),
    ],
)
def test_usage_errors_name_the_choices(quickstart, capsys, args, message):
    with pytest.raises(SystemExit):
        parse(quickstart, *args)
    assert re.search(message, capsys.readouterr().err)


def test_a_failed_training_names_its_log(quickstart, tmp_path, capfd):
    cfg = Config(dict(model=None, work_dir=str(tmp_path)))
    with pytest.raises(Exception, match='model'):
        quickstart.train(cfg, quickstart.TASKS['det'], tmp_path)
    assert f'{tmp_path}/log.txt' in capfd.readouterr().err


def test_a_full_disk_is_one_line(quickstart, tmp_path, capfd, monkeypatch):
    def build_runner(cfg):
        raise OSError(errno.ENOSPC, 'No space left on device', 'epoch_1.pth')

    monkeypatch.setattr(quickstart, 'build_runner', build_runner)
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(quickstart.UsageError, match=r'epoch_1\.pth is full'):
        quickstart.train(cfg, quickstart.TASKS['det'], tmp_path)
    assert capfd.readouterr().err == ''


@pytest.mark.slow
def test_publish_ends_with_a_model_that_is_loaded_by_name(
    few_digits, tmp_path, monkeypatch
):
    monkeypatch.setenv('MMATTN_ZOO', str(tmp_path / 'zoo'))
    command = [sys.executable, str(TOOL), '--task', 'cls', '--epochs', '1']
    done = subprocess.run(
        [*command, '--publish', '--data-root', str(few_digits)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search('accuracy/top1 = .*reproduced from', done.stdout)
    (model,) = zoo.read_index(tmp_path / 'zoo' / 'model-index.yml')
    assert model.name.startswith('boat-swin-nano_1xb32-25e_digits_')
    assert f'published    {model.name} in ' in done.stdout
    assert re.fullmatch(LAST_LINES['cls'], done.stdout.splitlines()[-1])


def test_ctrl_c_ends_with_one_line(few_digits, tmp_path):
    """Also of several tasks, which run in processes of their own."""
    process = subprocess.Popen(
        [sys.executable, str(TOOL), '--task', 'all', '--data-root']
        + [str(few_digits)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),
    )
    for line in process.stdout:
        if 'step ' in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors == 'quickstart.py: interrupted\n'


@pytest.mark.parametrize('set_to, expected', [(None, 'all'), ('1', '1')])
def test_threads_are_those_of_the_machine(quickstart, set_to, expected):
    code = (
        'import sys, os, runpy; sys.argv = sys.argv[1:]\n'
        'sys.path.insert(0, os.path.dirname(sys.argv[0]))\n'
        "runpy.run_path(sys.argv[0], run_name='quickstart')\n"
        'import torch; print(torch.get_num_threads())'
    )
    env = {k: v for k, v in os.environ.items() if k != 'OMP_NUM_THREADS'}
    if set_to:
        env['OMP_NUM_THREADS'] = set_to
    done = subprocess.run(
        [sys.executable, '-c', code, str(TOOL)],
        capture_output=True,
        text=True,
        env=env,
    )
    cores = len(os.sched_getaffinity(0))
    assert done.stdout == f'{cores if expected == "all" else expected}\n'
