"""Kernels in C++ for CPUs, compiled when they are first needed."""

import functools
from pathlib import Path

from torch import Tensor

from .. import custom_op
from .library import (
    Library,
    contiguous,
    is_available,
    pixels,
    warn_of_missing_kernels,
    why_not_tensors,
)

__all__ = [
    'KERNELS',
    'Library',
    'contiguous',
    'is_available',
    'pixels',
    'register_kernel',
    'why_not',
    'why_not_tensors',
]

KERNELS = Library('ops', Path(__file__).parent)


def why_not(*tensors: Tensor | None) -> str | None:
    """Why the kernels of this folder cannot take these tensors, or None.

    Warns, once, if they could, were there a working compiler.
    """
    reason = why_not_tensors(*tensors)
    if reason is None:
        reason = KERNELS.why_not()
        if reason is not None:
            warn_of_missing_kernels(reason)
    return reason


# The fastest implementations on a CPU.
register_kernel = functools.partial(
    custom_op.register_kernel,
    name='cpp',
    requires='a CPU; float32 or float64; a C++ compiler',
    priority=30,
    devices=('cpu',),
    is_available=is_available,
)
