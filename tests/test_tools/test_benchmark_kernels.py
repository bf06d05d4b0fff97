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
    pytest.importorskip('triton')
    done = run(sys.executable, tool, '--resources', TRITON_INTERPRET='1')
    assert done.returncode == 2
    assert '--resources expects TRITON_INTERPRET not to be set' in done.stderr


@pytest.mark.slow
def test_what_kernels_take(tmp_path):
    pytest.importorskip('triton')
    tool, page = TOOLS / 'benchmark_kernels.py', tmp_path / 'new' / 'page.md'
    done = run(sys.executable, tool, '--resources', '--out', page)
    assert done.returncode == 0, done.stderr
    assert page.read_text() == done.stdout
    assert 'compiled for compute capability 9.0, not run' in done.stdout
    assert '| `attend_windows` | 128 x 56 x 56 x 3 | ' in done.stdout


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


STAND_IN = """#!/bin/sh
case "$*" in
    *find_spec*mmengine*|*find_spec*timm) exit $STACK ;;
    -c*) exit 0 ;;
    *compiled-smt*) echo "asked for $*"; exit 3 ;;
    *) echo "asked for $*" ;;
esac
"""


def check_gpu(tmp_path, *steps, **environment):
    """Run the script with a stand-in for Python that only repeats."""
    python = tmp_path / 'python'
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return run(
        *('bash', TOOLS / 'check_gpu.sh', tmp_path / 'out', *steps),
        PYTHON=str(python),
        **environment,
    )


def test_steps_one_by_one(tmp_path):
    done = check_gpu(tmp_path, 'kernels', 'eager', STACK='0')
    assert done.returncode == 0, done.stderr
    asked = [x for x in done.stdout.splitlines() if x.startswith('asked')]
    assert 'benchmark_kernels.py --device cuda' in asked[0]
    assert "boat-swin-tiny(impl='triton')" in asked[1]
    assert len(asked) == 2
    assert (tmp_path / 'out' / 'benchmark_gpu.md').is_file()
    assert 'asked for' in (tmp_path / 'out' / 'eager.log').read_text()


def test_a_failure_stops_nothing_and_is_told(tmp_path):
    done = check_gpu(
        tmp_path, 'compiled', 'kernels', STACK='0', MODELS='a smt b-c'
    )
    assert done.returncode == 3
    assert '== compiled-smt failed (3)' in done.stdout
    assert 'tools/benchmark.py a b-c ' in done.stdout
    assert 'benchmark_kernels.py' in done.stdout


def test_without_the_stack_the_kernels_are_measured(tmp_path):
    done = check_gpu(tmp_path, STACK='1')
    assert done.returncode == 0, done.stderr
    assert 'tests/test_ops/test_triton_kernels' in done.stdout
    assert 'benchmark_kernels.py' in done.stdout
    for step in ('eager', 'detector', 'compiled'):
        assert f'{step} is left out: backbones need mmengine' in done.stdout
    assert 'tools/benchmark.py' not in done.stdout


def test_a_step_that_there_is_not(tmp_path):
    done = check_gpu(tmp_path, 'kernel', STACK='0')
    assert done.returncode == 2
    assert 'expects steps of agreement kernels eager' in done.stderr
