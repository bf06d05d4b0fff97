"""Compile kernels for a GPU that is not there, and read what they take."""

import contextlib
import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from mmattn.ops import padded_size
from mmattn.ops.dispatch import find_implementation


@dataclass(frozen=True)
class CompiledKernel:
    """What a kernel takes on the GPU that it was compiled for.

    Attributes:
        name: Name of the kernel.
        key: Another one for what was compiled anew.
        registers: Of a thread.
        spilled: Bytes of a thread that found no register, stored or loaded.
        shared: Bytes of shared memory of a program.
        warps: Warps of a program.
        products: The instruction for matrix products, such as ``'HGMMA'``
            (of four warps together) or ``'HMMA'``; empty without any.
        loads: Bytes of the widest load of a thread from global memory.
        programs: How many the launch asks for.
    """

    name: str
    key: str
    registers: int
    spilled: int
    shared: int
    warps: int
    products: str
    loads: int
    programs: int


# What a kernel takes, by its key: the assembler need not be asked twice.
_READ: dict[str, CompiledKernel] = {}


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
        if compiled.hash not in _READ:
            _READ[compiled.hash] = _read(compiled)
        kernels.append(replace(_READ[compiled.hash], programs=math.prod(grid)))
        return compiled

    previous = driver._active
    driver.set_active(_AbsentDevice(capability))
    try:
        with mock.patch.object(JITFunction, 'run', compile_only):
            yield kernels
    finally:
        driver._active = previous


def _read(compiled) -> CompiledKernel:
    """Ask Triton's assembler about the kernel, and read its machine code."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'kernel.ptx'
        binary = source.with_suffix('.cubin')
        source.write_text(compiled.asm['ptx'])
        target = re.search(r'\.target (\w+)', compiled.asm['ptx'])[1]
        report = _run(
            *(knobs.nvidia.ptxas.path, '-v', f'--gpu-name={target}'),
            *(source, '-o', binary),
        ).stderr
        code = _run(knobs.nvidia.cuobjdump.path, '-sass', binary).stdout
    products = re.search(r'\b[HQ]G?MMA\b', code)
    widths = re.findall(r'\bLDG(?:STS)?\b\S*?(?:\.(128|64|U16|U8))?\s', code)
    return CompiledKernel(
        name=compiled.metadata.name,
        key=compiled.hash,
        registers=int(re.search(r'Used (\d+) registers', report)[1]),
        spilled=sum(map(int, re.findall(r'(\d+) bytes spill', report))),
        shared=compiled.metadata.shared,
        warps=compiled.metadata.num_warps,
        products=products[0] if products else '',
        loads=max((_BYTES[width] for width in widths), default=0),
        programs=0,
    )


_BYTES = {'128': 16, '64': 8, '': 4, 'U16': 2, 'U8': 1}


def _run(*command) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=True
    )


def compile_operations(
    capability: int,
    dtype: torch.dtype,
    channels: int,
    shape: tuple[int, int, int, int] = (1, 66, 64, 2),
) -> list[CompiledKernel]:
    """Compile all kernels, forward and backward, for heads of one width.

    Args:
        capability: Compute capability of the GPU, 90 for that of a H100.
        dtype: Of the tensors.
        channels: Of a head, at most 64 in float32 and 128 in half precision.
            Convolutions have four heads of as many channels.
        shape: Images, height and width of the map, heads. Defaults to more
            tokens than one program sorts.
    """
    with compiling_for(capability) as kernels:
        for launch in _LAUNCHES:
            launch(dtype, channels, *shape)
    return kernels


def _launch(operation: str, *args) -> None:
    """Run a Triton kernel forward and, where it has a gradient, backward."""
    out = find_implementation(operation, 'triton').function(*args)
    if out.requires_grad:
        out.backward(torch.empty_like(out))


def launch_cluster_attention(
    dtype: torch.dtype, channels: int, B: int, H: int, W: int, h: int
) -> None:
    qkv = torch.zeros(B, H * W, 3 * h * channels, dtype=dtype)
    order = torch.zeros(B, h, H * W, dtype=torch.int64)
    args = qkv.requires_grad_(), order, 49, 20, channels**-0.5
    _launch('cluster_attention', *args)


def launch_window_attention(
    dtype: torch.dtype, channels: int, B: int, H: int, W: int, h: int
) -> None:
    side = 7
    H, W = padded_size((H, W), (side, side))
    qkv = torch.zeros(B, H, W, 3 * h * channels, dtype=dtype)
    bias = torch.zeros(h, side**2, side**2, dtype=dtype)
    qkv, bias = qkv.requires_grad_(), bias.requires_grad_()
    _launch('window_attention', qkv, h, side, 3, bias, channels**-0.5)


def launch_stripes(
    dtype: torch.dtype, channels: int, B: int, H: int, W: int, h: int
) -> None:
    h += h % 2  # for both orientations
    width = 1 if min(H, W) > 28 else 7  # as in CSWin
    qkv = torch.zeros(B, H, W, 3 * h * channels, dtype=dtype)
    weight = torch.zeros(h * channels, 1, 3, 3, dtype=dtype)
    bias = torch.zeros(h * channels, dtype=dtype)
    qkv, weight, bias = (x.requires_grad_() for x in (qkv, weight, bias))
    args = qkv, h, width, weight, bias, channels**-0.5
    _launch('cross_shaped_attention', *args)


def launch_clustering(
    dtype: torch.dtype, channels: int, B: int, H: int, W: int, h: int
) -> None:
    q = torch.zeros(B, h, H * W, channels, dtype=dtype)
    _launch('balanced_clusters', q, 49, 2, 100.0)


def launch_convolution(
    dtype: torch.dtype, channels: int, B: int, H: int, W: int, h: int
) -> None:
    x = torch.zeros(B, H, W, 4 * channels, dtype=dtype, requires_grad=True)
    weights = [torch.zeros(channels, 1, s, s) for s in (3, 5, 7, 9)]
    biases = [torch.zeros(channels) for _ in weights]
    for parameter in (*weights, *biases):
        parameter.requires_grad_()
    _launch('mixed_convolution', x, weights, biases)


_LAUNCHES = (
    launch_clustering,
    launch_cluster_attention,
    launch_window_attention,
    launch_stripes,
    launch_convolution,
)
