"""Kernels in C++ for CPUs, compiled when they are first needed."""

from .library import (
    NEEDS,
    call,
    plain,
    refuse_cpp,
    why_no_compiler,
    why_no_kernels,
)

__all__ = [
    'NEEDS',
    'call',
    'plain',
    'refuse_cpp',
    'why_no_compiler',
    'why_no_kernels',
]
