"""What kernels for GPUs take, compiled on a machine that needs no GPU.

Read from the machine code and from what the assembler reports; nothing runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mmattn.ops.triton_kernels.ahead_of_time import (
    CompiledKernel,
    compile_operations,
)

CHANNELS = 32  # of a head, as in all published backbones


class _Multiprocessor(NamedTuple):
    """What the programs that run at once on it share."""

    warps: int
    shared: int  # bytes


# By compute capability.
MULTIPROCESSORS = {
    80: _Multiprocessor(64, 163 * 1024),
    90: _Multiprocessor(64, 227 * 1024),
}
_REGISTERS = 64 * 1024
_RESERVED = 1024  # bytes of shared memory of each program


class ResourceRow(NamedTuple):
    """A kernel as it is compiled for a map.

    Attributes:
        map: Images, height, width and heads.
        kernel: What it takes.
        warps: That run at once on a multiprocessor.
    """

    map: tuple[int, int, int, int]
    kernel: CompiledKernel
    warps: int


def list_resources(
    capability: int,
    dtype: torch.dtype,
    maps: Sequence[tuple[int, int, int, int]],
) -> list[ResourceRow]:
    """Compile all kernels for some maps; each compilation is a row.

    Args:
        capability: Compute capability of the GPU, of ``MULTIPROCESSORS``.
        dtype: Of the maps.
        maps: Images, height, width, heads. The first for which a kernel is
            compiled stands for those that need no other compilation.
    """
    rows = {}
    for shape in maps:
        found = compile_operations(capability, dtype, CHANNELS, shape)
        for kernel in found:
            warps = warps_at_once(kernel, capability)
            rows.setdefault(kernel.key, ResourceRow(shape, kernel, warps))
    return sorted(rows.values(), key=lambda row: row.kernel.name)


def warps_at_once(kernel: CompiledKernel, capability: int) -> int:
    """Warps of a kernel that a multiprocessor has room for."""
    room = MULTIPROCESSORS[capability]
    registers = -(-kernel.registers // 8) * 8 * 32 * kernel.warps
    programs = min(
        room.warps // kernel.warps,
        _REGISTERS // registers,
        room.shared // (kernel.shared + _RESERVED),
    )
    return programs * kernel.warps


def to_markdown(rows: Sequence[ResourceRow]) -> str:
    """A table of the rows."""
    lines = [
        '| kernel | map | programs | warps | registers | spilled | shared KB '
        '| warps at once | products | loads |',
        '|---|---|---|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        kernel = row.kernel
        cells = (
            f'`{kernel.name}`',
            ' x '.join(map(str, row.map)),
            *(f'{kernel.programs:,}', kernel.warps),
            *(kernel.registers, kernel.spilled),
            f'{kernel.shared / 1024:.1f}',
            *(row.warps, kernel.products or '-', f'{kernel.loads} B'),
        )
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines) + '\n'
