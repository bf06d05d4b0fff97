"""tools/benchmark_kernels.py and check_gpu.sh, as a user calls them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / 'tools'


def run(*command, **environment):
    return subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        env=dict(os.environ, **environment),
    )


def test_mistakes():
    tool = TOOLS / 'benchmark_kernels.py'
    done = run(sys.executable, tool, '--device', 'cpu', '--batch', 0)
    assert done.returncode == 2
    assert '--batch and --rounds expect numbers from 1 up' in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu(tmp_path):
    tool = TOOLS / 'benchmark_kernels.py'
    done = run(sys.executable, tool, '--device', 'cuda')
    assert done.returncode == 2
    assert '--device cuda expects a GPU' in done.stderr
    script = TOOLS / 'check_gpu.sh'
    done = run('bash', script, tmp_path / 'out', PYTHON=sys.executable)
    assert done.returncode == 2
    assert 'expects PyTorch with a CUDA device and Triton' in done.stderr
    assert not (tmp_path / 'out').exists()
