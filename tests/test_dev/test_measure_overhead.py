"""tools/dev/measure_overhead.py."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

TOOL = Path(__file__).parents[2] / 'tools' / 'dev' / 'measure_overhead.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('side', [7, 14])
@pytest.mark.parametrize('batch', [1, 2])
def test_both_blocks_compute_the_same(tool, side, batch):
    ours, theirs = (block.double() for block in tool.build(side))
    # A pyramid starts with tables near zero, which would hide a wrong index.
    table = nn.init.normal_(theirs.table)
    ours.attn.relative_position_bias_table.data.copy_(table)
    x = torch.rand(batch, side, side, tool.EMBED_DIMS, dtype=torch.float64)
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_a_line_for_each_map_and_mode(tool, monkeypatch, capsys):
    monkeypatch.setattr(torch, 'set_num_threads', lambda number: None)
    words = ['--rounds', '1', '--min-seconds', '0']
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *words])
    tool.main()
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in capsys.readouterr().out.splitlines()[4:]
    ]
    assert [row[:2] for row in rows] == [
        ['7 x 7', 'inference'],
        ['7 x 7', 'training'],
        ['14 x 14, shifted', 'inference'],
        ['14 x 14, shifted', 'training'],
    ]
    for *_, micro, by_hand, ratio, calls, calls_by_hand in rows:
        assert float(micro) > 0 and float(by_hand) > 0 and float(ratio) > 0
        assert int(calls.split(' + ')[0]) > 0
        assert int(calls_by_hand) > 0


def test_python_calls_are_counted(tool):
    x, layer = torch.rand(1, 2), nn.Linear(2, 2)
    counts = tool.count_python_calls(lambda: layer(x))
    # __call__ is _wrapped_call_impl, which calls _call_impl and forward.
    assert 3 <= counts['torch'] <= 8 and counts['mmattn'] == 0
    twice = tool.count_python_calls(lambda: layer(layer(x)))
    assert twice['torch'] == 2 * counts['torch']
    ours = tool.AttentionPyramid('swin-nano').stages[0].blocks[0]
    x = torch.rand(1, 7, 7, 24)
    assert tool.count_python_calls(lambda: ours(x))['mmattn'] >= 3
