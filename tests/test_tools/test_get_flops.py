"""tools/get_flops.py, as a user calls it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from mmattn.backbones import SMT
from mmattn.cli.usage import run_command

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'get_flops.py'
CONFIG = ROOT / 'configs/swin/swin-nano_1xb32-25e_digits.py'


@pytest.fixture
def call(monkeypatch):
    """Run the tool in this process: its imports are what takes time."""
    spec = importlib.util.spec_from_file_location('get_flops', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*words):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, words)])
        run_command(tool.main)

    return run


def test_a_backbone_by_name(call, capsys):
    call('--backbone', 'boat-swin-nano', '--depth', '1')
    first, parameters, flops, _, head, *rows = (
        capsys.readouterr().out.splitlines()
    )
    assert first == 'input        3 x 224 x 224'
    assert head.split() == ['module', 'parameters', 'GFLOPs', '%']
    table = {row.split()[0]: row.split()[1:] for row in rows}
    assert list(table) == ['stem', 'stages', *(f'norm{i}' for i in range(4))]
    total = sum(int(row[0].replace(',', '')) for row in table.values())
    assert parameters.split() == ['parameters', f'{total:,}']
    assert flops.split()[0] == 'FLOPs' and flops.split()[2] == 'G'
    total = sum(float(row[1]) for row in table.values())
    assert abs(float(flops.split()[1]) - total) < 0.003


def test_a_config_at_any_shape():
    words = ('--depth', '0', '--shape', '32', '64')
    words += ('--cfg-options', 'model.head.num_classes=20')
    done = subprocess.run(
        [sys.executable, TOOL, CONFIG, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # 1,289,190 parameters of the backbone and 20 rows of the head.
    assert done.stdout.splitlines() == [
        'input        3 x 32 x 64',
        'parameters   1,293,050',
        'FLOPs        0.032 G (multiply-adds)',
    ]


def test_channels_of_the_image_and_arguments_of_the_backbone(call, capsys):
    words = ('--depth', '0', '--shape', '32', '32')
    call('--backbone', 'smt-nano', *words)
    call('--backbone', "mmattn.SMT(arch='nano')", '--in-channels', 6, *words)
    three, six = capsys.readouterr().out.split('input')[1:]
    assert three.split()[:5] == ['3', 'x', '32', 'x', '32']
    assert six.split()[:5] == ['6', 'x', '32', 'x', '32']
    counts = [
        int(text.split('parameters')[1].split()[0].replace(',', ''))
        for text in (three, six)
    ]
    stem = SMT(arch='nano').stem
    first = next(m for m in stem.modules() if isinstance(m, nn.Conv2d))
    assert counts[1] - counts[0] == first.weight.numel()


@pytest.mark.parametrize(
    'words, message',
    [
        ([], 'one of the arguments config --backbone is required'),
        ([CONFIG, '--shape', '0', '8'], '--shape'),
        (['nope.py'], 'nope.py'),
        (['--backbone', 'boat-swim-tiny'], 'boat-swin-tiny'),
        (['--backbone', "mmattn.SMT(arch='huge')"], 'arch'),
        (['--backbone', 'smt-nano', '--shape', '3', '9'], '4 x 4 pixels'),
    ],
)
def test_usage_errors(call, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        call(*words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
