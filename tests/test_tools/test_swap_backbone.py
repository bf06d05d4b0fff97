"""The command line of a swap."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mmattn.cli.usage import run_command

TOOL = Path(__file__).parents[2] / 'tools' / 'swap_backbone.py'


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Run the tool in this process, since its imports are slow."""
    spec = importlib.util.spec_from_file_location('swap_backbone', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *words])
        run_command(tool.main)

    return run


def test_swap_in_the_current_folder(call, capsys, tmp_path):
    source = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
    call(source, '--backbone', 'smt-nano', '--check')
    out = capsys.readouterr().out
    assert 'checked   a loss and a prediction' in out
    assert 'wrote     smt-nano_8xb32_in1k.py' in out
    assert 'changed   data_preprocessor' not in out
    assert 'model.backbone, model.head, optim_wrapper.optimizer' in out
    assert 'warning   the backbone starts from random weights' in out
    assert 'python tools/train.py smt-nano_8xb32_in1k.py' in out
    text = (tmp_path / 'smt-nano_8xb32_in1k.py').read_text()
    assert "type='mmattn.SMT'" in text


def test_a_config_that_fails_with_any_backbone(call, capsys, tmp_path):
    source = 'mmpretrain::levit/deploy/levit-128s_8xb256_in1k.py'
    with pytest.raises(SystemExit) as end:
        call(source, '--backbone', 'smt-nano', '--check')
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert 'with its own backbone the config fails as well' in error
    assert list(tmp_path.iterdir()) == []


def test_unsupported_swap_is_one_line_and_status_2(call, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        call('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_hrf-256x256.py')
    assert end.value.code == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith('swap_backbone.py: error: the backbone is a U-Net')
    )
    assert list(tmp_path.iterdir()) == []


def test_a_smaller_rate_is_a_warning(call, capsys):
    call('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    assert '0.1 times the learning rate' in capsys.readouterr().out
