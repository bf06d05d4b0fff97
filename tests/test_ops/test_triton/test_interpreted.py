"""The kernels on the CPU, through Triton's interpreter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmattn import ops
from mmattn.ops.triton_kernels.table import missing_to_compile

if missing_to_compile():
    pytest.skip(missing_to_compile(), allow_module_level=True)

FOLDER = Path(__file__).parent
MODULES = (
    'test_cross_shaped_attention',
    'test_cluster_attention',
    'test_clustering',
    'test_mixed_convolution',
    'test_mixed_expansion',
    'test_window_attention',
)


@pytest.mark.timeout(1800)  # on a busy machine
@pytest.mark.parametrize('module', MODULES)
@pytest.mark.skipif(
    os.environ.get('TRITON_INTERPRET') == '1', reason='is itself interpreted'
)
def test_kernels_through_the_interpreter(module, request):
    """In a process of its own: Triton decides when it is imported."""
    marks = request.config.getoption('markexpr')
    environment = {'TRITON_INTERPRET': '1', 'CUDA_VISIBLE_DEVICES': ''}
    file = str(FOLDER / f'{module}.py')
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', file, '-q', '-m', marks]
        + ['-n', '0', '-p', 'no:cacheprovider'],
        env={**os.environ, **environment},
        cwd=FOLDER.parents[2],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r'^\d+ passed', result.stdout, re.MULTILINE)


def test_every_module_of_kernels_is_interpreted():
    kernels = Path(ops.__file__).parent / 'triton_kernels'
    names = {
        f'test_{path.stem.removesuffix("_kernels")}'
        for path in kernels.glob('*_kernels.py')
    }
    assert names == set(MODULES)
