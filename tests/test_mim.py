"""``mim train / test / run / search mmattn``, from an installed wheel."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip('mim', reason='needs `pip install onedl-mim`')
CONFIG = 'boat-swin-nano_1xb32-25e_digits.py'


@pytest.fixture(scope='module')
def mim(installed, few_digits):
    """Run ``mim`` where mmattn is installed and nowhere else, beside data."""

    def run(*words):
        root = few_digits.parents[1]
        path = [str(installed), os.environ.get('PYTHONPATH', '')]
        done = subprocess.run(
            [sys.executable, '-m', 'mim', *words],
            capture_output=True,
            text=True,
            cwd=root,
            env=os.environ
            | dict(PYTHONPATH=os.pathsep.join(path), HOME=str(root)),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, root

    return run


def test_search_finds_models_by_backbone(mim):
    _, root = mim(
        *('search', 'mmattn', '--model', 'boat-swin'), '--json', 'found.json'
    )
    found = json.loads((root / 'found.json').read_text())
    tiny = 'boat-swin-tiny_8xb128-300e_in1k'
    assert found['parameters'][tiny] == 30265186
    assert set(found['model'].values()) == {'boat-swin'}
    assert found['config'][tiny] == f'configs/boat_swin/{tiny}.py'


def test_run_finds_a_tool_by_name(mim):
    # Not --help: mim gives that of the codebases that it knows alone.
    _, root = mim(
        *('run', 'mmattn', 'make_digit_scenes'),
        *('--out', 'two', '--train', '1', '--val', '1'),
    )
    assert list((root / 'two').rglob('*.png'))


@pytest.mark.slow
def test_train_and_test_find_the_config_by_name(mim):
    short = ('train_cfg.max_epochs=1', 'train_cfg.val_interval=2')
    work_dir = ('--work-dir', 'work')
    out, root = mim(
        *('train', 'mmattn', CONFIG, '--gpus', '0', *work_dir),
        *('--cfg-options', *short, 'train_dataloader.batch_size=8'),
    )
    assert 'Training finished successfully' in out
    out, _ = mim(
        *('test', 'mmattn', CONFIG, '--checkpoint', 'work/epoch_1.pth'),
        *work_dir,
    )
    assert 'accuracy/top1' in out
    assert 'Testing finished successfully' in out
