"""tools/benchmark.py, as a user calls it."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmark.py'


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the tool in this process and return its exit status and output."""
    spec = importlib.util.spec_from_file_location('benchmark', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*words):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *words])
        with pytest.raises(SystemExit) as ended:
            tool.run_command(tool.main)
        return ended.value.code, *capsys.readouterr()

    return run


def test_models_sizes_and_modes(call):
    words = 'swin-nano swin-nano --sizes 32 32x48 --batch 1 --rounds 2'
    status, out, progress = call(*words.split(), '--min-seconds', '0')
    assert status == 0
    assert 'round 2 of 2' in progress and 'round' not in out
    head, _, header, _, *lines = out.splitlines()
    assert 'batch 1' in head and f'torch {torch.__version__}' in head
    columns = [cell.strip() for cell in header.strip('|').split('|')]
    rows = [
        dict(zip(columns, map(str.strip, line.strip('|').split('|'))))
        for line in lines
        if line
    ]
    assert [(row['size'], row['mode']) for row in rows] == [
        *[('32 x 32', 'inference')] * 2,
        *[('32 x 32', 'training')] * 2,
        *[('32 x 48', 'inference')] * 2,
        *[('32 x 48', 'training')] * 2,
    ]
    assert float(rows[2]['MB saved/image']) > 0


def test_optimize_is_a_runtime(call, monkeypatch):
    import mmattn

    monkeypatch.setitem(
        vars(mmattn), 'optimize_for_inference', lambda module: module
    )
    words = 'swin-nano --optimize --sizes 32 --batch 1 --rounds 1'
    status, out, _ = call(*words.split(), '--min-seconds', '0')
    assert status == 0
    assert '| optimized |' in out and 'training' not in out


def test_a_runtime_that_is_not_installed(call, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    status, _, error = call('swin-nano', '--runtime', 'eager', 'onnxruntime')
    assert status == 2
    assert 'pip install onnxruntime' in error


def test_what_is_left_out_is_listed(call, monkeypatch):
    import mmattn

    def fail(module):
        raise ValueError('cannot do this')

    monkeypatch.setitem(vars(mmattn), 'optimize_for_inference', fail)
    words = 'swin-nano --runtime eager optimized --modes inference'
    words += ' --sizes 32 --batch 1 --rounds 1 --min-seconds 0'
    status, out, _ = call(*words.split())
    assert status == 1
    assert out.splitlines()[-1].endswith('ValueError: cannot do this')


@pytest.mark.parametrize(
    'words, message',
    [
        (['swim-nano'], 'swin-nano'),
        (['smt-nano(in_chanels=1)'], 'in_chanels'),
        (['mmattn.WindowAttention'], 'embed_dims'),
        (['none.py'], 'none.py'),
        (['swin-nano', '--dtype', 'int8'], 'int8'),
        (['swin-nano', '--batch', '0'], '--batch'),
        (['swin-nano', '--sizes', '0'], 'such as 224'),
        (['swin-nano', '--sizes', '64,32'], 'such as 224'),
        (['swin-nano', '--sizes', '3'], 'swin-nano, eager, 3 x 3'),
        (['swin-nano', '--optimize', '--modes', 'training'], 'train'),
        (['swin-nano', '--optimize', '--dtype', 'bfloat16'], 'float32'),
    ],
)
def test_mistakes_end_in_one_message(words, message, call):
    status, _, error = call(*words)
    assert status == 2
    assert message in error and 'Traceback' not in error


def test_a_gpu_that_is_not_there(call, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    status, _, error = call('swin-nano', '--device', 'cuda')
    assert status == 2
    assert '--device cuda' in error
