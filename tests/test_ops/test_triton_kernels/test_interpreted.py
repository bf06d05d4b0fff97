"""The kernels on the CPU, through Triton's interpreter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton')


@pytest.mark.skipif(
    os.environ.get('TRITON_INTERPRET') == '1', reason='is itself interpreted'
)
def test_kernels_through_the_interpreter(request):
    """In a process of its own: Triton decides when it is imported."""
    folder = Path(__file__).parent
    marks = request.config.getoption('markexpr')
    environment = {'TRITON_INTERPRET': '1', 'CUDA_VISIBLE_DEVICES': ''}
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', str(folder), '-q', '-m', marks]
        + ['-n', '0', '-p', 'no:cacheprovider'],
        env={**os.environ, **environment},
        cwd=folder.parents[2],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r'^\d+ passed', result.stdout, re.MULTILINE)
