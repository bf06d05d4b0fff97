"""Every kernel is compiled for GPUs that need not be there."""

import os

import pytest
import torch

pytest.importorskip('triton')
pytestmark = pytest.mark.skipif(
    os.environ.get('TRITON_INTERPRET') == '1', reason='compiles nothing'
)

# Bytes of shared memory that a program may take, by compute capability.
MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024}

# Bytes that the assembler may spill of itself, to keep more programs at once.
MOST_SPILLED = 64


def compile_operations(capability, dtype, channels):
    from mmattn.ops.triton_kernels import ahead_of_time

    kernels = ahead_of_time.compile_operations(capability, dtype, channels)
    assert {kernel.name for kernel in kernels} >= {
        'attend',
        'attend_backward_keys',
        'attend_backward_queries',
        'attend_windows',
        'attend_windows_backward',
        'convolve',
        'convolve_expand',
        'convolve_weights',
        'sort_groups',
    }
    for kernel in kernels:
        assert kernel.shared <= MOST_SHARED[capability], kernel
        assert 0 < kernel.registers <= 255
    return kernels


def test_kernels_of_the_published_heads_fit_into_registers():
    for kernel in compile_operations(90, torch.bfloat16, 32):
        assert kernel.spilled <= MOST_SPILLED, kernel


@pytest.mark.slow
@pytest.mark.parametrize('channels', [12, 16, 24, 32, 48, 64])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize('capability', MOST_SHARED)
def test_all_kernels(capability, dtype, channels):
    compile_operations(capability, dtype, channels)
