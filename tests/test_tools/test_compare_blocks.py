import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'compare_blocks.py'


def run(*args):
    return subprocess.run(
        [sys.executable, TOOL, *args], capture_output=True, text=True
    )


def test_prints_both_blocks_at_each_size():
    done = run('--sides', '8', '16', '--embed-dims', '32', '--repeats', '1')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ['8', '8', '16', '16']
    # 3 or 4 projections, 8 times the square for the perceptron, 2 norms.
    biases = 2 * 2 * 32 + 5 * 32
    linear, softmax = 11 * 32**2 + 3 * 32, 12 * 32**2 + 4 * 32
    for line, numbers in zip(lines, [linear, softmax] * 2):
        assert line.endswith(f'{numbers + biases:,}')
        assert float(line.split()[-3]) > 0


@pytest.mark.parametrize(
    'args, message',
    [
        (['--embed-dims', '40'], '--embed-dims expects a multiple of 32'),
        (['--sides', '0'], '--sides and --repeats expect numbers from 1 up'),
    ],
)
def test_wrong_sizes(args, message):
    done = run(*args)
    assert done.returncode == 2
    assert message in done.stderr and 'Traceback' not in done.stderr
