"""Compile C++ sources for the CPU at hand, once, into a private folder."""

import hashlib
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_LOGGER = logging.getLogger(__name__)
# Without errno and traps, math in loops is vectorized; results do not change.
_FLAGS = (
    '-std=c++17 -O3 -march=native -fPIC -shared -fopenmp -fno-math-errno '
    '-fno-trapping-math -fvisibility=hidden'
).split()
_MAX_SECONDS = 300  # about 15 on an idle machine


class BuildError(Exception):
    """Says why there is no library, and what to do."""


def find_compiler() -> list[str]:
    """The command of the C++ compiler: ``CXX``, or ``g++``.

    Raises:
        BuildError: If it is not installed.
    """
    command = os.environ.get('CXX', '').split() or ['g++']
    if shutil.which(command[0]) is None:
        raise BuildError(
            f'there is no C++ compiler {command[0]!r}; install GCC (on '
            'Debian: apt install g++) or set CXX to another compiler'
        )
    return command


def build_library(name: str, folder: Path, include: Sequence[Path]) -> Path:
    """The library of all sources in a folder, compiled at the first call.

    Args:
        name: First part of the file's name.
        folder: Contains the ``*.cpp`` and their headers.
        include: Other folders of headers.

    Raises:
        BuildError: If there is no compiler, it fails, or the cache cannot be
            used.
    """
    compiler = find_compiler()
    sources = sorted(folder.glob('*.cpp'))
    headers = [x for place in (folder, *include) for x in place.glob('*.h')]
    key = _digest_of_inputs(compiler, [*sources, *sorted(headers)])
    command = [*compiler, *_FLAGS, *(f'-I{place}' for place in include)]
    try:
        home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        cache = Path(home, 'mmattn', 'kernels').resolve()
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_private(cache):
            raise PermissionError(f'other users can write to {cache}')
        name = f'{name}-{key[:32]}'
        for library in cache.glob(f'{name}-*.so'):
            if _is_intact(library):
                return library
            library.unlink()
        return _compile([*command, *map(str, sources)], cache, name)
    except (OSError, RuntimeError) as error:  # also without a home
        raise BuildError(
            f'cannot use the cache of compiled kernels ({error}); set '
            'XDG_CACHE_HOME to another folder'
        ) from error


def _is_private(path: Path) -> bool:
    status = path.lstat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _is_intact(library: Path) -> bool:
    """Whether a library, which is executed when loaded, is as it was built."""
    return (
        stat.S_ISREG(library.lstat().st_mode)
        and _is_private(library)
        and library.stem.endswith(_digest(library))
    )


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:32]


def _compile(command: Sequence[str], cache: Path, name: str) -> Path:
    # Users who set up no logging see warnings only.
    _LOGGER.warning('Compiling kernels for this CPU, once, into %s', cache)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        built = Path(work, 'library.so')
        process = subprocess.Popen(
            [*command, '-o', str(built)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            text = process.communicate(timeout=_MAX_SECONDS)[1]
        except BaseException as error:
            # A compiler has children of its own.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise BuildError(
                    f'{command[0]} took more than {_MAX_SECONDS} s'
                ) from error
            raise
        if process.returncode:
            text = text.decode(errors='replace').strip()[-500:]
            raise BuildError(f'{command[0]} failed: {text}')
        built.chmod(0o700)
        library = cache / f'{name}-{_digest(built)}.so'
        return built.replace(library)  # atomic: others may compile it too


def _digest_of_inputs(compiler: Sequence[str], files: Sequence[Path]) -> str:
    """Changes with the sources, the compiler, its flags and the CPU."""
    status = Path(shutil.which(compiler[0])).stat()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        names = ('flags', 'Features', 'model')
        cpu = sorted({x for x in lines if x.startswith(names)})
    except OSError:
        cpu = platform.processor()
    inputs = *compiler, *_FLAGS, status.st_size, status.st_mtime_ns, cpu
    digest = hashlib.sha256(repr(inputs).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
