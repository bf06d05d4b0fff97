"""What kernels do without the memory that they work in."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmattn.ops import (
    balanced_clusters,
    clustering,
    depthwise_convolution,
    layer_norm,
    linear,
    mixed_expansion,
    perceptron,
    window_attention,
)
from mmattn.ops.cpu_kernels import attention, convolution, library

ABSURD = 2**50  # of numbers: more than there are addresses for

norms = sys.modules['mmattn.ops.layer_norm']
layers = sys.modules['mmattn.ops.cpu_kernels.linear']


@pytest.fixture
def greedy(monkeypatch):
    """Let a kernel take one of its sizes for an absurd one."""

    def be_greedy(module, kernel, place):
        def call(name, *args):
            if name == kernel:
                args = (*args[:place], ABSURD, *args[place + 1 :])
            library.call(name, *args)

        monkeypatch.setattr(module, 'call', call)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield be_greedy
    torch.set_num_threads(threads)


def attend(gradient=False):
    qkv = torch.randn(2, 4, 4, 12, requires_grad=gradient)
    return window_attention(qkv, 2, 2, impl='cpp')


def convolve(gradient=False):
    x = torch.randn(2, 4, 4, 3, requires_grad=gradient)
    return depthwise_convolution(x, torch.randn(3, 1, 3, 3), impl='cpp')


def expand():
    sides = (3, 5)
    kernels = [torch.randn(2, 1, side, side) for side in sides]
    biases = [torch.randn(2) for _ in sides]
    matrices, bias = torch.randn(4, 2), torch.randn(4)
    x = torch.randn(2, 4, 4, 4)
    return mixed_expansion(x, kernels, biases, matrices, bias, 'cpp')


def normalize():
    x = torch.randn(4, 16, requires_grad=True)
    return layer_norm(x, None, None, impl='cpp')


def multiply():
    x, weight = torch.randn(512, 16), torch.randn(8, 16, requires_grad=True)
    return linear(x, weight, impl='cpp')


def multiply_twice():
    x, weight = torch.randn(512, 16), torch.randn(16, 16, requires_grad=True)
    return perceptron(x, weight, None, weight, None, impl='cpp')


@pytest.mark.parametrize(
    'module, kernel, place, run',
    [
        (attention, 'attend', 8, attend),
        (attention, 'attend_gradients', 12, lambda: attend(True)),
        (
            clustering,
            'balanced_clusters',
            4,
            lambda: balanced_clusters(torch.randn(2, 9, 4), 4, impl='cpp'),
        ),
        (convolution, 'depthwise', 10, convolve),
        (convolution, 'depthwise_back', 10, lambda: convolve(True)),
        (convolution, 'expand', 9, expand),
        (norms, 'normalize_gradients', 7, normalize),
        (layers, 'linear', 5, multiply),
        (layers, 'perceptron', 8, multiply_twice),
    ],
)
def test_a_lack_of_memory_is_told(greedy, module, kernel, place, run):
    greedy(module, kernel, place)
    with pytest.raises(MemoryError) as error:
        run().sum().backward()
    text = str(error.value)
    assert text.startswith(f"kernel '{kernel}' expects ")
    asked = re.search(r'expects (\d+) bytes more to work in, got none', text)
    assert ABSURD <= int(asked[1]) < 2**63
    greedy(module, 'none', 0)
    run()  # the next call has what it needs


def test_within_a_limit_of_the_system():
    """Of 2^20 tokens in two copies, 256 MiB, where there are 100."""
    code = """
import re, resource, torch
from mmattn.ops import balanced_clusters
torch.set_num_threads(1)
features = torch.randn(1, 2**20, 32)
balanced_clusters(features[:, :128], impl='cpp')
status = open('/proc/self/status').read()
now = int(re.search(r'VmSize:\\s+(\\d+) kB', status)[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 100 * 2**20, -1))
try:
    balanced_clusters(features, impl='cpp')
except MemoryError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    asked = 2 * (2**20 + 8) * 32 * 4
    assert done.stdout.startswith(
        f"kernel 'balanced_clusters' expects {asked} bytes more to work in"
    )


def test_every_kernel_returns_what_it_lacks():
    """What returns nothing would return anything: its call would fail."""
    sources = Path(library.__file__).parent.glob('*.cpp')
    kinds = re.findall(
        r'extern "C" MMATTN_EXPORT (\S+) mmattn_\w+',
        ' '.join(source.read_text() for source in sources),
    )
    assert len(kinds) > 5
    assert set(kinds) <= {'Index', 'mmattn::Index'}
