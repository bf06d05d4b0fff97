import pytest

pytest.importorskip('triton')

from mmattn.analysis.kernel_resources import (  # noqa: E402
    ResourceRow,
    to_markdown,
    warps_at_once,
)
from mmattn.ops.triton_kernels.ahead_of_time import (  # noqa: E402
    CompiledKernel,
)


def kernel(registers, shared, warps, products='HGMMA'):
    return CompiledKernel(
        *('attend', 'key', registers, 12, shared, warps, products, 16, 3456)
    )


@pytest.mark.parametrize(
    'registers, shared, warps, capability, expected',
    [
        (32, 1024, 4, 90, 64),  # all that a multiprocessor runs
        (255, 1024, 4, 90, 8),  # 256 registers of 128 threads, twice
        (130, 1024, 4, 90, 12),  # rounded up to 136
        (32, 112 * 1024, 4, 90, 8),  # twice 113 KB
        (32, 112 * 1024, 4, 80, 4),
        (129, 1024, 8, 90, 8),
    ],
)
def test_warps_at_once(registers, shared, warps, capability, expected):
    assert warps_at_once(kernel(registers, shared, warps), capability) == (
        expected
    )


def test_table():
    rows = [
        ResourceRow((2, 56, 56, 3), kernel(72, 1536, 4), 28),
        ResourceRow((2, 7, 7, 24), kernel(72, 0, 4, products=''), 28),
    ]
    lines = to_markdown(rows).splitlines()
    assert lines[2:] == [
        '| `attend` | 2 x 56 x 56 x 3 | 3,456 | 4 | 72 | 12 | 1.5 | 28 '
        '| HGMMA | 16 B |',
        '| `attend` | 2 x 7 x 7 x 24 | 3,456 | 4 | 72 | 12 | 0.0 | 28 '
        '| - | 16 B |',
    ]
    assert lines[0].count('|') == lines[1].count('|') == lines[2].count('|')
