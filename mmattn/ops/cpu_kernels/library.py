"""Compile the kernels of this folder and call them.

They are plain functions of pointers and numbers: one compiled library serves
every version of torch. It is compiled for the CPU at hand, once, into a
folder of the user's, which takes some seconds; where there is no compiler,
operations run without it.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.nn import Parameter

from ..compiling import is_compiling, is_transforming
from ..implementations import Reason

_LOGGER = logging.getLogger(__name__)
NEEDS = (
    'a CPU; float32 or float64; a C++ compiler; no torch.compile or transform'
)

_SOURCES = Path(__file__).parent
# Without errno and traps, loops over maths become vectors; results stay.
_FLAGS = (
    '-std=c++17',
    '-O3',
    '-march=native',
    '-fPIC',
    '-fopenmp',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fvisibility=hidden',
)
# Libraries of other sources, compilers or CPUs, since they were last loaded.
_UNUSED_SECONDS = 30 * 24 * 3600
_SUFFIXES = {torch.float32: 'f32', torch.float64: 'f64'}


def _find_compiler() -> tuple[list[str], Reason]:
    named = os.environ.get('CXX', '').strip() or 'g++'
    if os.environ.get('MMATTN_CPU_KERNELS') == '0':
        return [], 'MMATTN_CPU_KERNELS=0 switches kernels off'
    try:
        command = shlex.split(named)
    except ValueError:
        command = [named]
    if shutil.which(command[0]) is None:
        return [], f'there is no C++ compiler {named!r}; CXX names another'
    return command, None


# Looked up once: a compiler of graphs cannot follow the look-up.
_COMPILER, _MISSING = _find_compiler()


def why_no_compiler() -> Reason:
    """Why kernels cannot be compiled on this machine, or None."""
    return _MISSING


def why_no_kernels() -> Reason:
    """Why there are none, once they have been tried to compile, or None."""
    return _load()[1]


def refuse_cpp(*tensors: Tensor | None) -> Reason:
    """Why the kernels cannot take these tensors here, or None."""
    if is_compiling():
        return 'a compiler fuses the definition by itself'
    if is_transforming():
        return 'tracers and transforms follow the definition only'
    if torch._C._len_torch_dispatch_stack():
        return 'a dispatch mode would not see what it does'
    for x in tensors:
        if x is None:
            continue
        if type(x) not in (Tensor, Parameter) or x.is_neg():
            return f'it takes plain tensors, got {type(x)}'
        if x.device.type != 'cpu':
            return f'it runs on a CPU, got {x.device}'
        if x.dtype not in _SUFFIXES or x.dtype != tensors[0].dtype:
            return f'it takes float32 or float64 alike, got {x.dtype}'
    return why_no_kernels()


def call(name: str, *args: Tensor | int | float | None) -> None:
    """Call a kernel.

    Args:
        name: Of the kernel, for the dtype of the first tensor.
        *args: What it takes. Tensors are handed over as pointers: they have
            to be contiguous, and of the dtype that the kernel expects.
    """
    suffix = _SUFFIXES[next(x.dtype for x in args if isinstance(x, Tensor))]
    kernel = getattr(_load()[0], f'mmattn_{name}_{suffix}')
    # A profiler sees operators alone, unless it is told.
    is_profiled = torch.autograd._profiler_enabled()
    with record_function(f'mmattn::{name}') if is_profiled else nullcontext():
        kernel(*map(_as_c, args))


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
    reason = why_no_compiler()
    if reason:
        return None, reason
    try:
        library = _built()
        # OpenMP's functions are found in the runtime that torch has loaded,
        # so that both share one set of threads.
        try:
            return ctypes.CDLL(str(library)), None
        except OSError:  # cut short by a full disk, say
            library.unlink(missing_ok=True)  # or removed as unused just now
            return ctypes.CDLL(str(_built())), None
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        detail = getattr(error, 'stderr', None) or str(error)
        reason = f'no kernels were built: {detail.strip()[-500:]}; '
        return None, f'{reason}XDG_CACHE_HOME names another cache'


def _built() -> Path:
    """The compiled library, made if need be."""
    sources = sorted(_SOURCES.glob('*.cpp'))
    compiler = Path(shutil.which(_COMPILER[0])).stat()
    digest = hashlib.sha256(' '.join((*_COMPILER, *_FLAGS)).encode())
    digest.update(f'{compiler.st_size} {compiler.st_mtime_ns}'.encode())
    digest.update(_cpu().encode())
    for source in (*sources, *sorted(_SOURCES.glob('*.h'))):
        digest.update(source.read_bytes())
    folder = _cache()
    library = folder / f'kernels-{digest.hexdigest()[:16]}.so'
    if library.exists():
        with suppress(OSError):  # of someone else's, which others read
            os.utime(library)
        return library
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Without a handler, warnings alone are seen; nobody should wonder.
    _LOGGER.warning('Compiling kernels for this CPU, once, into %s', folder)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        objects = [Path(work, f'{source.stem}.o') for source in sources]
        commands = [
            [*_COMPILER, *_FLAGS, '-c', str(source), '-o', str(target)]
            for source, target in zip(sources, objects)
        ]
        _run_all(commands)
        target = Path(work, library.name)
        _run_all(
            [[*_COMPILER, '-shared', *map(str, objects), '-o', str(target)]]
        )
        with target.open('rb') as written:
            os.fsync(written.fileno())
        # Whoever else compiles at the same time has made the same.
        target.replace(library)
    _remove_unused(folder)
    return library


def _remove_unused(folder: Path) -> None:
    """Remove libraries that nobody has loaded for long.

    Who has one loaded keeps it; who is about to load it makes it anew.
    """
    oldest = time.time() - _UNUSED_SECONDS
    for library in folder.glob('kernels-*.so'):
        with suppress(OSError):  # another process was faster
            if library.stat().st_mtime < oldest:
                library.unlink()


def _run_all(commands: list[list[str]]) -> None:
    """Run commands side by side; raises CalledProcessError."""
    running = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    errors = [process.communicate()[1] for process in running]
    for process, error in zip(running, errors):
        if process.returncode:
            raise subprocess.CalledProcessError(
                process.returncode, process.args, stderr=error
            )


def _cpu() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    wanted = ('flags', 'Features', 'model name', 'cpu family', 'model\t')
    return '\n'.join(sorted({x for x in lines if x.startswith(wanted)}))


def _cache() -> Path:
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'mmattn' / 'kernels'
