"""The kernels on the CPU, through Triton's interpreter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmattn.ops import _triton, list_implementations

if not _triton.HAS_TRITON:
    pytest.skip('Triton is not installed', allow_module_level=True)
pytest.importorskip('triton.knobs', reason='the kernels need Triton 3.4')

FOLDER = Path(__file__).parents[1]
OPERATIONS = sorted(
    x.operation for x in list_implementations() if x.name == 'triton'
)


@pytest.mark.timeout(1800)  # on a busy machine
@pytest.mark.parametrize('operation', OPERATIONS)
@pytest.mark.skipif(_triton.IS_INTERPRETED, reason='is itself interpreted')
def test_kernels_through_the_interpreter(operation, request):
    """In a process of its own: Triton decides when it is imported."""
    marks = request.config.getoption('markexpr')
    environment = {'TRITON_INTERPRET': '1', 'CUDA_VISIBLE_DEVICES': ''}
    file = str(FOLDER / f'test_{operation}' / 'test_triton.py')
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', file, '-q', '-m', marks]
        + ['-n', '0', '-p', 'no:cacheprovider'],
        env={**os.environ, **environment},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r'^\d+ passed', result.stdout, re.MULTILINE)
