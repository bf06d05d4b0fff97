"""Load the kernels of this folder and call them.

They are plain functions of pointers and numbers: one compiled library serves
every version of torch. Where there is no compiler, operations run without.
"""

import ctypes
import functools
import logging
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.nn import Parameter

from ..compiling import is_compiling, is_transforming
from ..implementations import (
    Reason,
    list_implementations,
    register_implementation,
)
from . import building
from .building import why_no_compiler

_LOGGER = logging.getLogger(__name__)
NEEDS = (
    'a CPU; float32 or float64; a C++ compiler; no torch.compile or transform'
)
_COMPILING = 'a compiler fuses the definition by itself'
_SUFFIXES = {torch.float32: 'f32', torch.float64: 'f64'}


def register_kernel(
    operation: str,
    priority: float,
    refuses: Callable[..., Reason],
    needs: str = NEEDS,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the decorated function as the row ``'cpp'`` of an operation.

    ``refuses`` calls :func:`refuse_cpp`. It is not asked by compilers, which
    cannot read its messages about sizes.
    """

    def refuses_here(*args: Any) -> Reason:
        return _COMPILING if is_compiling() else refuses(*args)

    def warn_of_loss(reason: str, *args: Any) -> None:
        # Where the kernel would run, were it there.
        lost = why_kernels_are_lost()
        if lost and reason == lost == refuses(*args):
            _warn_once(lost)

    return register_implementation(
        operation,
        'cpp',
        needs=needs,
        priority=priority,
        missing=why_no_compiler,
        refuses=refuses_here,
        passed_over=warn_of_loss,
    )


def why_no_kernels() -> Reason:
    """Why there are none, once they have been tried to compile, or None."""
    return why_no_compiler() or _load()[1]


def why_kernels_are_lost() -> Reason:
    """Why there are none though nobody has switched them off, or None.

    As far as is known: nothing is compiled for it.
    """
    if building.IS_SWITCHED_OFF:
        return None
    is_loaded = _load.cache_info().currsize
    return why_no_compiler() or (_load()[1] if is_loaded else None)


def how_to_mend() -> str:
    """What to do where kernels are lost."""
    if why_no_compiler():
        return 'install GCC (on Debian: apt install g++)'
    return 'see what the compiler says; `python -m mmattn` tries again'


@functools.cache
def _warn_once(lost: str) -> None:
    rows = [row for row in list_implementations() if not row.missing()]
    with_kernels = {
        row.operation for row in list_implementations() if row.name == 'cpp'
    }
    instead: dict[str, str] = {}
    for row in rows:  # best first
        if row.operation in with_kernels and row.name != 'cpp':
            instead.setdefault(row.operation, row.name)
    _LOGGER.warning(
        'No kernels in C++ on this CPU: %s. Slower ones of PyTorch run '
        'instead (%s). To mend it, %s; to leave it so without this warning, '
        'set MMATTN_CPU_KERNELS=0',
        lost,
        ', '.join(f'{name}: {row!r}' for name, row in instead.items()),
        how_to_mend(),
    )


def refuse_cpp(*tensors: Tensor | None) -> Reason:
    """Why the kernels cannot take these tensors here, or None.

    It may compile the kernels; ask for sizes after :func:`refuse_tensors`.
    """
    return refuse_tensors(*tensors) or why_no_kernels()


def refuse_tensors(*tensors: Tensor | None) -> Reason:
    """Why no kernel can take these tensors, were it there, or None."""
    if is_compiling():
        return _COMPILING
    if is_transforming():
        return 'tracers and transforms follow the definition only'
    if torch._C._len_torch_dispatch_stack():
        return 'a dispatch mode would not see what it does'
    for x in tensors:
        if x is None:
            continue
        if type(x) not in (Tensor, Parameter):
            return f'it takes plain tensors, got {type(x)}'
        if x.layout != torch.strided:
            return f'it takes dense tensors, got {x.layout}'
        if x.is_neg():
            return 'it takes plain tensors, got one that is yet to be negated'
        if x.device.type != 'cpu':
            return f'it runs on a CPU, got {x.device}'
        if x.dtype not in _SUFFIXES or x.dtype != tensors[0].dtype:
            return f'it takes float32 or float64 alike, got {x.dtype}'
    return None


def call(name: str, *args: Tensor | int | float | None) -> None:
    """Call a kernel.

    Args:
        name: Of the kernel, for the dtype of the first tensor.
        *args: What it takes. Tensors are handed over as pointers: they have
            to be contiguous, and of the dtype that the kernel expects.

    Raises:
        MemoryError: If it does not get the memory that it works in.
    """
    suffix = _SUFFIXES[next(x.dtype for x in args if isinstance(x, Tensor))]
    kernel = getattr(_load()[0], f'mmattn_{name}_{suffix}')
    kernel.restype = ctypes.c_int64
    # A profiler sees operators alone, unless it is told.
    is_profiled = torch.autograd._profiler_enabled()
    with record_function(f'mmattn::{name}') if is_profiled else nullcontext():
        lacking = kernel(*map(_as_c, args))
    if lacking:
        raise MemoryError(
            f'kernel {name!r} expects {lacking} bytes more to work in, got '
            'none: the memory is used up; take fewer images, smaller ones or '
            'fewer threads (torch.set_num_threads)'
        )


def plain(x: Tensor) -> Tensor:
    """A gradient with memory of its own, contiguous."""
    if x.is_neg() or x._is_zerotensor():
        x = x.clone()
    return x.contiguous()


def _as_c(x: Tensor | int | float | None) -> object:
    if isinstance(x, Tensor):
        if x.device.type != 'cpu':
            raise ValueError(
                f'kernels expect tensors on a CPU, got {x.device}'
            )
        try:
            return ctypes.c_void_p(x.data_ptr())
        except RuntimeError as error:
            raise RuntimeError(
                "impl 'cpp' expects tensors with memory of their own, got one "
                'without, of a batch of gradients (vmap), say; force '
                "'reference', see mmattn.ops.force_implementation"
            ) from error
    if isinstance(x, float):
        return ctypes.c_double(x)
    return ctypes.c_void_p() if x is None else ctypes.c_int64(x)


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, Reason]:
    """The library, or why there is none."""
    try:
        library = building.build()
        # OpenMP's functions are found in the runtime that torch has loaded,
        # so that both share one set of threads.
        try:
            return ctypes.CDLL(str(library)), None
        except OSError:  # cut short by a full disk, say
            library.unlink(missing_ok=True)  # or removed as unused just now
            return ctypes.CDLL(str(building.build())), None
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        detail = getattr(error, 'stderr', None) or str(error)
        detail = detail.strip().rstrip('.')[-500:]
        reason = f'no kernels were built: {detail}; '
        return None, f'{reason}XDG_CACHE_HOME names another cache'
