"""Load and call compiled C++ functions.

They are plain functions of pointers and numbers, independent of the version
of torch.
"""

import ctypes
import functools
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.nn import Parameter

from .build import BuildError, build_library, find_compiler

try:
    from torch.compiler import assume_constant_result
except ImportError:
    from torch._dynamo import assume_constant_result

_LOGGER = logging.getLogger(__name__)
_SWITCH = 'MMATTN_CPU_KERNELS'
_OFF = ('0', 'no', 'off', 'false')
_SUFFIXES = {torch.float32: 'f32', torch.float64: 'f64'}
_KINDS = {'t': ctypes.c_void_p, 'i': ctypes.c_int64, 'd': ctypes.c_double}
_PLAIN_TYPES = (Tensor, Parameter)


class Library:
    """Functions compiled from the C++ sources of one folder.

    Args:
        name: First part of the file's name.
        folder: Contains the ``*.cpp`` and their headers.
        include: Other folders of headers.
    """

    def __init__(
        self, name: str, folder: Path, include: Sequence[Path] = ()
    ) -> None:
        self.name = name
        self.folder = folder
        self.include = include
        self._loaded: ctypes.CDLL | None = None
        self._failure: str | None = None

    @assume_constant_result
    def why_not(self) -> str | None:
        """Why its functions cannot be called, or None.

        Compiles them at the first call.
        """
        if self._loaded is None and self._failure is None:
            try:
                if is_switched_off():
                    raise BuildError(f'{_SWITCH} turns C++ kernels off')
                path = build_library(self.name, self.folder, self.include)
                # It uses the OpenMP runtime that torch has loaded, and its
                # threads.
                self._loaded = ctypes.CDLL(str(path))
            except (BuildError, OSError) as error:
                self._failure = str(error)
        return self._failure

    def constant(self, name: str) -> int:
        """The result of ``mmattn_<name>()``; ``why_not()`` must be None."""
        function = getattr(self._loaded, f'mmattn_{name}')
        function.argtypes, function.restype = [], ctypes.c_int64
        return function()

    def function(self, name: str, signature: str) -> Callable[..., None]:
        """A function of the library, compiled when it is called.

        It raises MemoryError if it cannot allocate its workspace.

        Args:
            name: The symbol is ``mmattn_<name>_<f32 or f64>``, by the dtype
                of the first tensor. It returns the bytes that it could not
                allocate.
            signature: One letter for each argument: ``t`` for a pointer to a
                contiguous tensor, or None; ``i`` for an int64; ``d`` for a
                float64.
        """
        types = [_KINDS[kind] for kind in signature]
        found: dict[torch.dtype, Callable] = {}

        def look_up(dtype: torch.dtype) -> Callable:
            reason = self.why_not()
            if reason:
                raise RuntimeError(f'no kernel {name!r}: {reason}')
            function = getattr(
                self._loaded, f'mmattn_{name}_{_SUFFIXES[dtype]}'
            )
            function.argtypes, function.restype = types, ctypes.c_int64
            found[dtype] = function
            return function

        def call(*args: Tensor | int | float | None) -> None:
            tensors = [x for x in args if isinstance(x, Tensor)]
            if not all(x.is_cpu for x in tensors):
                raise ValueError('C++ kernels take tensors on a CPU')
            pointers = [
                x.data_ptr() if isinstance(x, Tensor) else x for x in args
            ]
            dtype = tensors[0].dtype
            function = found.get(dtype) or look_up(dtype)
            # By themselves, profilers see operators only.
            profiled = torch.autograd._profiler_enabled()
            label = f'mmattn::{name}'
            with record_function(label) if profiled else nullcontext():
                missing = function(*pointers)
            if missing:
                raise MemoryError(
                    f'could not allocate {missing} bytes of workspace for '
                    f'kernel {name!r}; use fewer or smaller images, or fewer '
                    'threads (torch.set_num_threads)'
                )

        return call


def contiguous(x: Tensor) -> Tensor:
    """``x`` in contiguous memory, without a lazy negation."""
    return x.resolve_neg().contiguous()


def pixels(x: Tensor) -> tuple[Tensor, int]:
    """A map ``(B, H, W, C)`` for a kernel, and the step between its pixels.

    Some channels of a wider map are not copied.
    """
    x = x.resolve_neg()
    _, H, W, C = x.shape
    step = x.stride(2)
    if x.stride() != (H * W * step, W * step, step, 1):
        return x.contiguous(), C
    return x, step


def is_switched_off() -> bool:
    """Whether ``MMATTN_CPU_KERNELS`` turns C++ kernels off."""
    return os.environ.get(_SWITCH, '').strip().lower() in _OFF


def is_available() -> bool:
    """Whether kernels can be compiled on this machine."""
    if is_switched_off():
        return False
    try:
        find_compiler()
    except BuildError:
        return False
    return True


def why_not_tensors(*tensors: Tensor | None) -> str | None:
    """Why no C++ kernel takes these tensors, or None."""
    dtype = tensors[0].dtype
    if dtype not in _SUFFIXES:
        return 'it takes float32 or float64'
    for x in tensors:
        if x is None:
            continue
        if type(x) not in _PLAIN_TYPES:
            return 'it takes plain tensors, no subclass'
        if x.layout != torch.strided:
            return 'it takes dense tensors'
        if x.device.type != 'cpu' or x.dtype != dtype:
            return 'it takes tensors of one dtype on a CPU'
    return None


@assume_constant_result
@functools.cache
def warn_of_missing_kernels(reason: str) -> None:
    """Warn, once in a process, unless the user turned kernels off."""
    if not is_switched_off():
        _LOGGER.warning(
            'No C++ kernels on this CPU: %s. Slower operations of PyTorch run '
            'instead. Set %s=0 to run without this warning',
            reason,
            _SWITCH,
        )
