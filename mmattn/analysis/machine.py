"""What a machine is and reaches: software, matrix products, memory."""

import platform
from pathlib import Path
from typing import NamedTuple

import torch

import mmattn
from mmattn.stack import distribution_version, find_installed

from .timing import time_in_turns

DTYPES = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}

_ROUNDS = 5
# Large enough to reach the full rate, small enough for a moment.
_MATRIX_SIDE = {'cpu': 2048, 'cuda': 8192}
# Larger than the caches.
_COPIED_BYTES = {'cpu': 2**28, 'cuda': 2**31}


class Machine(NamedTuple):
    """What a device reaches.

    Attributes:
        name: Of the processor or the GPU.
        matmul_rate: Operations per second of a large matrix product; a
            multiply-add is two.
        copy_bandwidth: Bytes per second of a large copy, read and written.
    """

    name: str
    matmul_rate: float
    copy_bandwidth: float


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure a device, the best of some rounds, for products of a dtype."""
    return Machine(
        _describe(device),
        _measure_matmul_rate(device, dtype),
        _measure_copy_bandwidth(device),
    )


def _measure_matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    n = _MATRIX_SIDE[device.type]
    a, b = (torch.rand(n, n, device=device).to(dtype) for _ in range(2))
    laps = time_in_turns({'product': lambda: a @ b}, _ROUNDS, 0.1)
    return 2 * n**3 / min(lap.seconds for lap in laps['product'])


def _measure_copy_bandwidth(device: torch.device) -> float:
    source = torch.ones(
        _COPIED_BYTES[device.type] // 4, dtype=torch.float32, device=device
    )
    target = torch.empty_like(source)
    laps = time_in_turns({'copy': lambda: target.copy_(source)}, _ROUNDS, 0.1)
    return 2 * source.nbytes / min(lap.seconds for lap in laps['copy'])


def _describe(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    for line in info.read_text().splitlines() if info.is_file() else []:
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def list_versions() -> dict[str, str]:
    """Versions of what the measured models are made of."""
    others = {name: distribution_version(name) for name in ('timm', 'triton')}
    stack = {item.distribution: item.version for item in find_installed()}
    return dict(
        python=platform.python_version(),
        torch=torch.__version__,
        mmattn=mmattn.__version__,
        **{name: version for name, version in others.items() if version},
        **stack,
    )
