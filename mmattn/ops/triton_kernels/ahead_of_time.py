"""Compile kernels for a GPU that is not there, and read what they take."""

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from .cluster_attention import cluster_attention
from .clustering import balanced_clusters
from .mixed_convolution import mixed_convolution
from .mixed_expansion import mixed_expansion
from .window_attention import window_attention


@dataclass(frozen=True)
class CompiledKernel:
    """What a kernel takes on the GPU that it was compiled for.

    Attributes:
        name: Name of the kernel.
        registers: Of a thread.
        spilled: Bytes of a thread that found no register, stored or loaded.
        shared: Bytes of shared memory of a program.
        warps: Warps of a program.
    """

    name: str
    registers: int
    spilled: int
    shared: int
    warps: int


class _AbsentDevice:
    """What Triton asks a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget('cuda', self.capability, 32)

    def get_current_device(self) -> str:
        return f'sm_{self.capability}'  # under which Triton keeps kernels

    def get_current_stream(self, device: str) -> None:
        return None


@contextlib.contextmanager
def compiling_for(capability: int) -> Iterator[list[CompiledKernel]]:
    """Compile every kernel that is launched inside, and run none.

    What the operators return holds no result. Tensors lie on the CPU.

    Args:
        capability: Compute capability of the GPU, 90 for that of a H100.

    Yields:
        A list, to which every launch adds its kernel.
    """
    kernels: list[CompiledKernel] = []
    run = JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        compiled = run(self, *args, grid=grid, warmup=True, **kwargs)
        kernels.append(_read(compiled, capability))
        return compiled

    previous = driver._active
    driver.set_active(_AbsentDevice(capability))
    try:
        with mock.patch.object(JITFunction, 'run', compile_only):
            yield kernels
    finally:
        driver._active = previous


def _read(compiled, capability: int) -> CompiledKernel:
    """Ask Triton's assembler about the kernel's registers."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'kernel.ptx'
        source.write_text(compiled.asm['ptx'])
        target = re.search(r'\.target (\w+)', compiled.asm['ptx'])[1]
        report = subprocess.run(
            [knobs.nvidia.ptxas.path, '-v', f'--gpu-name={target}']
            + [str(source), '-o', str(source.with_suffix('.cubin'))],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    spills = re.findall(r'(\d+) bytes spill', report)
    return CompiledKernel(
        compiled.metadata.name,
        int(re.search(r'Used (\d+) registers', report)[1]),
        sum(map(int, spills)),
        compiled.metadata.shared,
        compiled.metadata.num_warps,
    )


def compile_operations(
    capability: int, dtype: torch.dtype, channels: int
) -> list[CompiledKernel]:
    """Compile all kernels, forward and backward, for heads of one width.

    Args:
        capability: Compute capability of the GPU, 90 for that of a H100.
        dtype: Of the tensors.
        channels: Of a head, at most 64 in float32 and 128 in half precision.
    """
    with compiling_for(capability) as kernels:
        for launch in _LAUNCHES:
            launch(dtype, channels)
    return kernels


def _launch_cluster_attention(dtype: torch.dtype, channels: int) -> None:
    tokens, heads = 28 * 28, 2
    qkv = torch.zeros(1, tokens, 3 * heads * channels, dtype=dtype)
    order = torch.zeros(1, heads, tokens, dtype=torch.int64)
    qkv.requires_grad_()
    out, _ = cluster_attention(qkv, order, 49, 20, channels**-0.5)
    out.backward(torch.zeros_like(out))


def _launch_window_attention(dtype: torch.dtype, channels: int) -> None:
    side, heads = 7, 2
    qkv = torch.zeros(1, 20, 20, 3 * heads * channels, dtype=dtype)
    bias = torch.zeros(heads, side**2, side**2)
    padding = torch.zeros(qkv.shape[-1])
    tensors = [x.requires_grad_() for x in (qkv, bias, padding)]
    out = window_attention(*tensors, heads, side, 3, channels**-0.5)
    out.backward(torch.zeros_like(out))


def _launch_clustering(dtype: torch.dtype, channels: int) -> None:
    # Of the most tokens that one program sorts.
    balanced_clusters(
        torch.zeros(1, 4096, channels, dtype=dtype), 49, 2, 100.0
    )


def _launch_convolution(dtype: torch.dtype, channels: int) -> None:
    sides = [3, 5, 7, 9]
    x = torch.zeros(1, 28, 28, 4 * channels, dtype=dtype)
    taps = torch.zeros(sum(side**2 for side in sides), channels)
    bias = torch.zeros(4, channels)
    tensors = [x.requires_grad_() for x in (x, taps, bias)]
    out = mixed_convolution(*tensors, sides)
    out.backward(torch.zeros_like(out))
    matrices = torch.zeros(8 * channels, 4)  # as wide as those of SMT
    x, taps, bias = (x.detach() for x in tensors)
    mixed_expansion(x, taps, bias, sides, matrices, matrices[:, 0])


_LAUNCHES = (
    _launch_clustering,
    _launch_cluster_attention,
    _launch_window_attention,
    _launch_convolution,
)
