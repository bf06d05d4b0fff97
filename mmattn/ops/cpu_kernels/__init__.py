"""Kernels in C++ for CPUs, compiled when they are first needed."""

from .building import why_no_compiler
from .library import (
    NEEDS,
    call,
    how_to_mend,
    plain,
    refuse_cpp,
    refuse_tensors,
    register_kernel,
    why_kernels_are_lost,
    why_no_kernels,
)

__all__ = [
    'NEEDS',
    'call',
    'how_to_mend',
    'plain',
    'refuse_cpp',
    'refuse_tensors',
    'register_kernel',
    'why_kernels_are_lost',
    'why_no_compiler',
    'why_no_kernels',
]
