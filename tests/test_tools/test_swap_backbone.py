"""The command line of a swap."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mmattn.cli.usage import run_command

TOOL = Path(__file__).parents[2] / 'tools' / 'swap_backbone.py'


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Run the tool in this process: its imports are what takes time."""
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
    assert 'model.head.in_channels' in out
    text = (tmp_path / 'smt-nano_8xb32_in1k.py').read_text()
    assert "type='mmattn.SMT'" in text


def test_a_mistake_of_the_codebase_is_told(call, capsys):
    source = 'mmpretrain::levit/deploy/levit-128s_8xb256_in1k.py'
    call(source, '--backbone', 'smt-nano', '--check')
    out = capsys.readouterr().out
    assert 'checked   a prediction' in out  # the codebase has no loss for it
    assert 'beware    it runs with any backbone only once this mistake' in out
    assert '`LeViTClsHead.__init__`' in out


def test_refusal_is_one_line_and_status_2(call, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        call('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_hrf-256x256.py')
    assert end.value.code == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith('swap_backbone.py: error: its backbone decodes')
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'words, message',
    [
        ([], 'expects SOURCE or --coverage HOST'),
        (['a.py', '--coverage', 'mmseg'], 'expects SOURCE or --coverage HOST'),
        (
            ['--coverage', 'mmseg', '--check', '--keep-optimizer'],
            '--coverage takes no --keep-optimizer, --check',
        ),
        (
            ['--coverage', 'mmseg', '--checkpoint', 'x.pth', '--force'],
            '--coverage takes no --checkpoint, --force',
        ),
        (
            ['a.py', '--retry', 'failed', '--jobs', '2', '--sample', '3'],
            'SOURCE takes no --sample, --retry, --jobs',
        ),
        (['--coverage', 'mmseg', '--jobs', '0'], 'numbers from 1 up'),
        (['--coverage', 'mmseg', '--sample', '0'], 'numbers from 1 up'),
        (['--coverage', 'mmseg', '--timeout', '0'], 'seconds above 0'),
    ],
)
def test_options_that_mean_nothing_are_refused(call, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        call(*words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
