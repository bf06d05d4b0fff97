"""What kernels do without the memory that they work in."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmattn.ops import _native

CODE = """
import re, resource, torch
from mmattn.ops import balanced_clusters, mixed_convolution
from mmattn.ops import cross_shaped_attention
torch.set_num_threads(1)
{setup}
call(small)
status = open('/proc/self/status').read()
now = int(re.search(r'VmSize:\\s+(\\d+) kB', status)[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + {allowed} * 2**20, -1))
try:
    call(large)
except MemoryError as error:
    print(error)
call(small)  # the next call has what it needs
"""
CASES = {
    # 2^20 tokens in two copies take 256 MiB.
    'balanced_clusters': """
large = torch.randn(1, 2**20, 32)
small = large[:, :128]
call = lambda x: balanced_clusters(x, impl='cpp')
""",
    # All pairs of 128 queries with 2^20 keys take 512 MiB.
    'attend': """
weight = torch.randn(4, 1, 3, 3)
large = torch.randn(1, 2**18, 4, 12)
small = large[:, :4].contiguous()
call = lambda x: cross_shaped_attention(x, 1, None, weight, impl='cpp')
""",
    # A row of 2^22 columns, padded to 16 channels, takes 256 MiB.
    'convolve': """
kernels = [torch.randn(1, 1, 3, 3)], [torch.randn(1)]
large = torch.randn(1, 1, 2**22, 1)
small = large[:, :, :4].contiguous()
call = lambda x: mixed_convolution(x, *kernels, 'cpp')
""",
}


@pytest.mark.parametrize('kernel', CASES)
def test_within_a_limit_of_the_system(kernel):
    code = CODE.format(setup=CASES[kernel], allowed=130)
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = re.match(
        rf"could not allocate (\d+) bytes of workspace for kernel '{kernel}'",
        done.stdout,
    )
    assert found and int(found[1]) > 50 * 2**20, done.stdout


def test_more_than_there_can_be():
    """An absurd size is an error, not a crash."""
    convolve = _native.KERNELS.function('convolve', 'titttiiiiiti')
    x, weight, bias = torch.zeros(4), torch.zeros(1, 1, 1, 1), torch.zeros(1)
    sides = torch.tensor([1])
    # A column count that no workspace can hold.
    arguments = (x, 1, weight, bias, sides, 1, 1, 1, 1, 2**58, x, 1)
    with pytest.raises(MemoryError, match="kernel 'convolve'"):
        convolve(*arguments)


def test_every_kernel_returns_what_it_lacks():
    """What returns nothing would return anything: its call would fail."""
    sources = Path(_native.__file__).parent.glob('*.cpp')
    kinds = re.findall(
        r'extern "C" MMATTN_EXPORT (\S+) mmattn_\w+',
        ' '.join(source.read_text() for source in sources),
    )
    assert len(kinds) == 5
    assert set(kinds) <= {'Index', 'mmattn::Index'}
