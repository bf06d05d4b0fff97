"""Shared by the Triton kernels of all operations.

This module needs only torch: kernels, and Triton, are imported when they are
launched. For tests, without a GPU, Triton's interpreter runs them slowly if
``TRITON_INTERPRET=1`` is set before the first import.
"""

import contextlib
import functools
import importlib.util
import os

import torch
from torch import Tensor
from torch.nn import Parameter

from .. import custom_op

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MOST_CHANNELS = 128
_PLAIN_TYPES = (Tensor, Parameter)


HAS_TRITON = importlib.util.find_spec('triton') is not None
IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


def is_available() -> bool:
    """Whether kernels can run on this machine."""
    return HAS_TRITON and (IS_INTERPRETED or torch.cuda.is_available())


def why_not(x: Tensor) -> str | None:
    """Why the kernels do not support a tensor, or None."""
    if not HAS_TRITON:
        return "it requires the package 'triton'"
    if x.dtype not in _DTYPES:
        return 'it takes float32, bfloat16 or float16'
    if type(x) not in _PLAIN_TYPES:
        return 'it takes plain tensors, no subclass'
    return None


def why_not_channels(channels: int) -> str | None:
    """Why no attention supports so many channels of a head, or None."""
    if channels > _MOST_CHANNELS:
        return f'it takes at most {_MOST_CHANNELS} channels of a head'
    return None


REQUIRES = 'Triton; a CUDA device; float32, bfloat16 or float16'
register_kernel = functools.partial(
    custom_op.register_kernel,
    name='triton',
    requires=REQUIRES,
    # Below the reference, so that 'auto' does not take them: no kernel has
    # been timed on a GPU yet. The fastest implementation of an operation is
    # to rank above PyTorch's fused attention (10).
    priority=-1,
    devices=('cuda', 'cpu') if IS_INTERPRETED else ('cuda',),
    is_available=is_available,
)


# Triton's functions of these names take microseconds outside of kernels.
def ceil_div(length: int, part: int) -> int:
    """Number of parts that cover a length."""
    return -(-length // part)


def power_of_2(length: int) -> int:
    """The next power of two that is no less."""
    return 1 << max(length - 1, 0).bit_length()


def tile_side(length: int, most: int) -> int:
    """Side of a tile for ``length``, from 16 to ``most``."""
    return min(max(power_of_2(length), 16), most)


def with_unit_stride(x: Tensor) -> Tensor:
    """``x``, copied unless the stride of its last axis is 1."""
    return x if x.stride(-1) == 1 else x.contiguous()


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager:
    """Make the device of ``x`` the current one."""
    if x.is_cuda:
        return torch.cuda.device(x.device)
    return contextlib.nullcontext()
