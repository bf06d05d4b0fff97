"""tools/dev/check_gpu.sh, with a fake Python that only repeats its command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / 'tools' / 'dev' / 'check_gpu.sh'
FAKE = """#!/bin/sh
case "$*" in
    *find_spec*mmengine*|*find_spec*timm) exit $STACK ;;
    -c*) exit 0 ;;
    *"a smt "*) echo "called $*"; echo "out of memory" >&2; exit 3 ;;
    *) echo "called $*" ;;
esac
"""


def run(*args, **environment):
    return subprocess.run(
        ['bash', SCRIPT, *args],
        capture_output=True,
        text=True,
        env=dict(os.environ, **environment),
    )


@pytest.fixture
def check_gpu(tmp_path):
    python = tmp_path / 'python'
    python.write_text(FAKE)
    python.chmod(0o755)

    def check(*steps, **environment):
        folder = tmp_path / 'out'
        return run(folder, *steps, PYTHON=str(python), **environment), folder

    return check


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu(tmp_path):
    done = run(tmp_path / 'out', PYTHON=sys.executable)
    assert done.returncode == 2
    assert 'CUDA' in done.stderr
    assert not (tmp_path / 'out').exists()


def test_steps_one_by_one(check_gpu):
    done, folder = check_gpu('kernels', 'eager', STACK='0')
    assert done.returncode == 0, done.stderr
    calls = [x for x in done.stdout.splitlines() if x.startswith('called')]
    assert 'benchmark_kernels.py --device cuda' in calls[0]
    assert "boat-swin-tiny(impl='triton')" in calls[1]
    assert len(calls) == 2
    page = (folder / 'benchmark_gpu.md').read_text()
    assert '## eager\n\ncalled tools/benchmark.py' in page


def test_a_failure_stops_nothing_and_is_reported(check_gpu):
    done, _ = check_gpu('compiled', 'kernels', STACK='0', MODELS='a smt b-c')
    assert done.returncode == 3
    assert '== compiled-smt failed (3)\nout of memory' in done.stdout
    assert 'tools/benchmark.py a b-c ' in done.stdout
    assert 'benchmark_kernels.py' in done.stdout


def test_steps_without_their_dependencies_are_skipped(check_gpu):
    done, _ = check_gpu(STACK='1')
    assert done.returncode == 0, done.stderr
    assert 'pytest' in done.stdout and 'benchmark_kernels.py' in done.stdout
    for step in ('eager', 'detector', 'compiled'):
        assert f'{step} skipped' in done.stdout
    assert 'tools/benchmark.py' not in done.stdout


def test_an_unknown_step(check_gpu):
    done, _ = check_gpu('kernel', STACK='0')
    assert done.returncode == 2
    assert 'agreement kernels eager' in done.stderr
