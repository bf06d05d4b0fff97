"""tools/dev/compare_blocks.py."""

import importlib.util
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'dev' / 'compare_blocks.py'


def test_prints_both_blocks_at_each_size(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    words = '--sides 8 16 --embed-dims 32 --repeats 1'.split()
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *words])
    tool.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ['8', '8', '16', '16']
    # 3 or 4 projections, 8 times the square for the MLP, 2 norms.
    biases = 2 * 2 * 32 + 5 * 32
    linear, softmax = 11 * 32**2 + 3 * 32, 12 * 32**2 + 4 * 32
    for line, parameters in zip(lines, [linear, softmax] * 2):
        assert line.endswith(f'{parameters + biases:,}')
        assert float(line.split()[-3]) > 0
