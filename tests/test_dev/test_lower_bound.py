"""tools/dev/lower_bound.py and profile_model.py."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip('torch.nn.attention', reason='needs torch 2.3')
TOOLS = Path(__file__).parents[2] / 'tools' / 'dev'


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Model(nn.Module):
    """One product of each kind, and one linear layer called twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.conv(x).flatten(2).mT.contiguous()
        x = self.fc(self.fc(x))
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_each_product_counts_with_its_fastest_way(monkeypatch):
    tool = load('lower_bound')
    timed = []

    def time_in_turns(ways, rounds):
        timed.append(len(ways))
        for way in ways.values():
            assert way().isfinite().all()
        return {way: [3.0 + 4 * way, 9.0] for way in ways}

    monkeypatch.setattr(tool, 'time_in_turns', time_in_turns)
    seconds = tool.lower_bound(Model(), torch.rand(2, 3, 6, 6), 2)
    # Both products of attention in one way, the others in two.
    assert sorted(timed) == [1, 1, 2, 2]
    assert seconds == (1 + 1 + 1 + 2) * 3.0


@pytest.mark.parametrize(
    'name, words, expected',
    [
        ('lower_bound', ['--rounds', '1'], '| swin-nano |'),
        ('profile_model', [], 'aten::'),
        ('profile_model', ['--training'], 'backward'),
    ],
)
def test_prints_a_table(name, words, expected, monkeypatch, capsys):
    words = ['swin-nano', '--size', '32', '--batch', '1', *words]
    monkeypatch.setattr(sys, 'argv', [name, *words])
    load(name).main()
    assert expected in capsys.readouterr().out.lower()
