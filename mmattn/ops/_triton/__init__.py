"""What the Triton kernels of all operations share.

This module needs only torch: kernels, and Triton with them, are imported when
they are launched. On a machine without a GPU they run through Triton's
interpreter if ``TRITON_INTERPRET=1`` is set before the first import: slowly,
for tests.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter

from ..custom_op import Kernel
from ..dispatch import register_implementation

# Below the reference, so that 'auto' does not take them: no kernel has been
# timed on a GPU yet. The fastest of its operation shall rank above PyTorch's
# fused attention (10).
_PRIORITY = -1
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MOST_CHANNELS = 128
_PLAIN_TYPES = (Tensor, Parameter)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


HAS_TRITON = _is_installed('triton')
IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


def is_available() -> bool:
    """Whether kernels can run on this machine."""
    return HAS_TRITON and (IS_INTERPRETED or torch.cuda.is_available())


def why_not(x: Tensor) -> str | None:
    """Why no kernel takes a tensor, or None."""
    if not HAS_TRITON:
        return "it needs the package 'triton', which is not installed"
    if x.dtype not in _DTYPES:
        return 'it takes float32, bfloat16 or float16'
    if type(x) not in _PLAIN_TYPES:
        return 'it takes plain tensors, no subclass'
    return None


def why_not_channels(channels: int) -> str | None:
    """Why no attention takes so many channels of a head, or None."""
    if channels > _MOST_CHANNELS:
        return f'it takes at most {_MOST_CHANNELS} channels of a head'
    return None


def register_kernel(
    operation: str,
    kernel: Kernel,
    why_not: Callable[..., str | None],
    limits: str = '',
) -> None:
    """Add a kernel to the table, as ``'triton'``."""
    register_implementation(
        operation,
        'triton',
        requires='Triton; a CUDA device; float32, bfloat16 or float16'
        + limits,
        priority=_PRIORITY,
        devices=('cuda', 'cpu') if IS_INTERPRETED else ('cuda',),
        is_available=is_available,
        why_not=why_not,
        is_kernel=True,
        operator=kernel.operator,
    )(kernel.function)


# Triton's own serve kernels too, and take microseconds outside of them.
def ceil_div(length: int, part: int) -> int:
    """How many parts cover a length."""
    return -(-length // part)


def power_of_2(length: int) -> int:
    """The next power of two that is no less."""
    return 1 << max(length - 1, 0).bit_length()


def tile_side(length: int, most: int) -> int:
    """Side of a tile that holds ``length``, or ``most`` of it: 16 at least."""
    return min(max(power_of_2(length), 16), most)


def with_unit_stride(x: Tensor) -> Tensor:
    """``x`` itself where its last axis lies side by side, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager:
    """Launch where ``x`` lies, whichever device is the current one."""
    if x.is_cuda:
        return torch.cuda.device(x.device)
    return contextlib.nullcontext()
