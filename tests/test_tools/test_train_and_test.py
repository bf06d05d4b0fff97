"""The commands as a user types them, on a data set made for it."""

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmattn.datasets import DigitSceneSpec, make_digit_folder

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs' / 'boat_swin'
CLASSIFIER = CONFIGS / 'boat-swin-nano_1xb32-25e_digits.py'
SEGMENTOR = CONFIGS / 'upernet_boat-swin-nano_1xb8-8e_digits.py'
IMAGENET = CONFIGS / 'boat-swin-tiny_8xb128-300e_in1k.py'
COCO = CONFIGS / 'mask-rcnn_boat-swin-tiny_fpn_8xb2-1x_coco.py'

# 21 images for two processes: one of them repeats an image, which must not
# be counted twice.
SHORT = (
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.batch_size=8',
    'val_dataloader.dataset.indices=21',
    'test_dataloader.dataset.indices=21',
)
FEWER = {
    CLASSIFIER: 'train_dataloader.dataset.indices=32',
    SEGMENTOR: 'train_dataloader.dataset.times=1',
}


def run(*words, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """Run a command in a clean environment, with this interpreter."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ('PYTHONPATH', 'RANK', 'LOCAL_RANK', 'WORLD_SIZE')
    }
    clean |= dict(PYTHON=sys.executable, CUDA_VISIBLE_DEVICES='', **env)
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
    )


def python(tool: str, *words, cwd: Path) -> subprocess.CompletedProcess:
    return run(sys.executable, TOOLS / tool, *words, cwd=cwd)


def bash(tool: str, *words, cwd: Path, **env) -> subprocess.CompletedProcess:
    return run('bash', TOOLS / tool, *words, cwd=cwd, **env)


def error_of(done: subprocess.CompletedProcess) -> str:
    """Check that the command ended as a usage error, return its message."""
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert 'Traceback' not in output, output
    (line,) = [x for x in done.stderr.splitlines() if ': error: ' in x]
    return line


@pytest.mark.parametrize(
    'tool', ['train.py', 'test.py', 'convert_checkpoint.py']
)
def test_tools_explain_a_missing_stack(tool, tmp_path):
    # Metadata of both stacks side by side is as wrong as none at all.
    for name in ('onedl_mmengine', 'mmengine'):
        folder = tmp_path / f'{name}-0.10.12.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}\nVersion: 0.10.12\n'
        )
    done = run(
        *(sys.executable, TOOLS / tool, 'c.py'),
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )
    assert 'both stacks' in error_of(done)


@pytest.mark.parametrize(
    'words, message',
    [
        (['nope.py'], 'nope.py'),
        ([IMAGENET], 'data/imagenet'),
        ([COCO], 'checkpoints/boat-swin-tiny_in1k.pth'),
        ([IMAGENET, '--resume', 'gone.pth'], 'gone.pth'),
        (
            [IMAGENET, '--cfg-options', 'train_dataloader=None'],
            'needs train_dataloader',
        ),
        ([IMAGENET, '--cfg-options', 'x'], '--cfg-options expects KEY=VALUE'),
        (
            [COCO, '--cfg-options', 'model.neck.in_channels=[64,128,256,512]'],
            'out_channels=[96, 192, 384, 768]',
        ),
    ],
)
def test_train_explains_usage_errors(words, message, tmp_path):
    assert message in error_of(python('train.py', *words, cwd=tmp_path))


@pytest.mark.parametrize(
    'words, message',
    [
        ([IMAGENET, 'gone.pth'], 'gone.pth'),
        (
            [IMAGENET, 'a.pth', '--cfg-options', 'test_evaluator=None'],
            'needs test_evaluator',
        ),
    ],
)
def test_test_explains_usage_errors(words, message, tmp_path):
    assert message in error_of(python('test.py', *words, cwd=tmp_path))


@pytest.mark.parametrize(
    'tool, words, message',
    [
        ('dist_train.sh', [IMAGENET], 'expected CONFIG GPUS, got 1'),
        ('dist_train.sh', [IMAGENET, 'two'], "got 'two'"),
        ('dist_train.sh', [IMAGENET, '0'], "got '0'"),
        ('dist_test.sh', [IMAGENET, '2'], 'CONFIG CHECKPOINT GPUS, got 2'),
        ('slurm_train.sh', ['dev', 'job'], 'CONFIG WORK_DIR, got 2'),
        ('slurm_test.sh', ['dev', 'job'], 'CONFIG CHECKPOINT, got 2'),
        # One process speaks for both, and its status is handed on.
        ('dist_train.sh', ['nope.py', '2'], 'nope.py'),
    ],
)
def test_scripts_explain_usage_errors(tool, words, message, tmp_path):
    assert message in error_of(bash(tool, *words, cwd=tmp_path))


def test_taken_port_is_named(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = bash('dist_train.sh', 'c.py', '2', cwd=tmp_path, PORT=str(port))
    assert f'PORT={port} ' in error_of(done)


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_slurm_scripts_start_one_process_per_gpu(tool, tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    done = bash(
        f'slurm_{tool}.sh',
        *('dev', 'job', 'c.py', 'last', '--cfg-options', 'a=[1, 2]'),
        cwd=tmp_path,
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        GPUS='4',
        SRUN_ARGS='--quotatype=spot -x node1',
    )
    words = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    for word in ('--gres=gpu:4', '--ntasks=4', '--quotatype=spot', 'node1'):
        assert word in words
    assert words[-3:] == ['--launcher=slurm', '--cfg-options', 'a=[1, 2]']
    last = ['--work-dir=last'] if tool == 'train' else ['last']
    assert words[words.index('c.py') + 1 :][:1] == last


@pytest.fixture(scope='module')
def here(tmp_path_factory) -> Path:
    """A folder with digit scenes, where the commands are typed."""
    folder = tmp_path_factory.mktemp('here')
    spec = DigitSceneSpec(num_train=32, num_val=21)
    make_digit_folder(folder / 'data' / 'digit_scenes', spec)
    return folder


def metrics(folder: Path) -> dict:
    (file,) = folder.glob('*/*.json')
    scores = json.loads(file.read_text())
    return {k: v for k, v in scores.items() if k not in ('time', 'data_time')}


@pytest.mark.parametrize('config', [CLASSIFIER, SEGMENTOR], ids=['cls', 'seg'])
def test_two_processes_train_and_test_as_one(config, here):
    name = config.stem
    trained = bash(
        'dist_train.sh',
        *(config, '2', '--work-dir', name, '--auto-scale-lr'),
        *('--cfg-options', *SHORT, FEWER[config]),
        cwd=here,
    )
    log = trained.stdout + trained.stderr
    assert trained.returncode == 0, log[-4000:]
    assert 'No GPU: 2 processes' in log
    assert 'Batch: 2 x 8 = 16 images.' in log
    assert 'was multiplied by ' in log

    options = ('--cfg-options', SHORT[-1])
    checkpoint = here / name / 'epoch_1.pth'
    alone = python(
        'test.py',
        *(config, checkpoint, '--work-dir', f'{name}-1', *options),
        cwd=here,
    )
    assert alone.returncode == 0, alone.stderr[-4000:]
    both = bash(
        'dist_test.sh',
        *(config, checkpoint, '2', '--work-dir', f'{name}-2'),
        *('--out', f'{name}.pkl', *options),
        cwd=here,
    )
    assert both.returncode == 0, both.stderr[-4000:]
    scores = metrics(here / f'{name}-1')
    assert scores
    assert metrics(here / f'{name}-2') == scores
    # What was scored while training is what the checkpoint scores.
    validated = here.joinpath(name).glob('*/vis_data/scalars.json')
    last = json.loads(next(validated).read_text().splitlines()[-1])
    assert {key: last[key] for key in scores} == scores
    with open(here / f'{name}.pkl', 'rb') as file:
        assert len(pickle.load(file)) == 21


def test_weights_of_another_model_are_refused(here):
    torch.save({'model': {'layers.0.x': torch.ones(1)}}, here / 'other.pth')
    message = 'other.pth'
    for words in (
        ('test.py', CLASSIFIER, 'other.pth'),
        ('train.py', CLASSIFIER, '--load-from', 'other.pth'),
    ):
        done = python(*words, '--work-dir', 'refused', cwd=here)
        assert message in error_of(done)
    assert not list(here.glob('refused/*.pth'))


def test_tools_run_from_an_installed_package(here, tmp_path):
    # MIM finds the tools under mmattn/.mim, where no package lies beside.
    tools = tmp_path / 'mmattn' / '.mim' / 'tools'
    shutil.copytree(TOOLS, tools, ignore=shutil.ignore_patterns('*.pyc'))
    done = run(
        sys.executable,
        tools / 'train.py',
        'nope.py',
        cwd=here,
        PYTHONPATH=str(ROOT),
    )
    assert 'nope.py' in error_of(done)


def test_launcher_explains_itself(tmp_path):
    done = python('launch_processes.py', '--help', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'GPUS SCRIPT' in done.stdout


def test_launcher_needs_numbers(tmp_path):
    for name in ('NNODES', 'NODE_RANK', 'PORT'):
        done = bash('dist_train.sh', 'c.py', '2', cwd=tmp_path, **{name: 'x'})
        assert name in error_of(done)


def start(*words, cwd):
    """Start a command as a shell does, in a group of its own."""
    return subprocess.Popen(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, 'PYTHON': sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),
    )


def wait_for_line(process, part):
    for line in process.stdout:
        if part in line:
            return
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope='module')
def long_test(here):
    """A config with many test images, and a checkpoint of random weights."""
    config = here / 'long.py'
    config.write_text(
        f'_base_ = {str(CLASSIFIER)!r}\n'
        'dataset = dict(indices=[0] * 9999)\n'
        'test_dataloader = dict(batch_size=1, dataset=dataset)\n'
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(config).model)
    torch.save(model.state_dict(), here / 'long.pth')
    return config, here / 'long.pth'


@pytest.mark.parametrize(
    'tool', ['train.py', 'test.py', 'dist_train.sh', 'dist_test.sh']
)
def test_ctrl_c_ends_with_one_line(tool, here, long_test):
    """As in a terminal, where all processes of the group get the signal."""
    if 'train' in tool:
        words, line = [CLASSIFIER], 'Epoch(train)'
    else:
        words, line = [*long_test], 'Epoch(test)'
    interpreter = sys.executable
    if tool.endswith('.sh'):
        interpreter = 'bash'
        words.append(2)
    process = start(
        *(interpreter, TOOLS / tool, *words, '--work-dir', f'ctrl-c-{tool}'),
        cwd=here,
    )
    wait_for_line(process, line)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert 'Traceback' not in errors
    assert errors.count('interrupted\n') == 1


def processes_of(word):
    """Command lines with a word."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            if word in path.read_text().split('\0'):
                found.append(path)
    return found


@pytest.mark.skipif(not Path('/proc/self').exists(), reason='needs /proc')
def test_processes_end_with_a_killed_launcher(here):
    """Also their data loaders."""
    process = start(
        *('bash', TOOLS / 'dist_train.sh', CLASSIFIER, 2),
        *('--work-dir', here / 'killed', '--cfg-options'),
        *('train_dataloader.num_workers=1', 'train_cfg.max_epochs=999'),
        cwd=here,
    )
    wait_for_line(process, 'Epoch(train)')
    started = str(here / 'killed')  # the path of this test run alone
    assert len(processes_of(started)) >= 5
    process.kill()
    end = time.monotonic() + 10
    while processes_of(started) and time.monotonic() < end:
        time.sleep(0.1)
    assert not processes_of(started)


@pytest.mark.parametrize(
    'script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test']
)
def test_scripts_tell_how_they_are_called(script, tmp_path):
    done = run('bash', TOOLS / f'{script}.sh', '--help', cwd=tmp_path)
    assert done.returncode == 0
    assert f'bash tools/{script}.sh ' in done.stdout
    assert '#' not in done.stdout
