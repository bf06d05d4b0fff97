"""Kernels in C++ for CPUs, compiled when they are first needed."""

from .library import NEEDS, call, refuse_cpp, why_no_compiler

__all__ = ['NEEDS', 'call', 'refuse_cpp', 'why_no_compiler']
