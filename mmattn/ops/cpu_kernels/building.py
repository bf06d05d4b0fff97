"""Compile the kernels of this folder.

They are compiled for the CPU at hand, once, into a folder of the user's,
which takes some seconds.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ..implementations import Reason

_LOGGER = logging.getLogger(__name__)
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
_SWITCH = 'MMATTN_CPU_KERNELS'
_ON = ('1', 'yes', 'on', 'true')
_OFF = ('0', 'no', 'off', 'false')


def _is_switched_off() -> bool:
    """Whether the user wants no kernels, as the environment says."""
    said = os.environ.get(_SWITCH, '').strip()
    if said and said.lower() not in _ON + _OFF:
        raise ValueError(
            f'{_SWITCH} expects 1, yes, on or true for kernels in C++, or 0, '
            f'no, off or false for none, got {said!r}'
        )
    return said.lower() in _OFF


def _find_compiler() -> tuple[list[str], Reason]:
    named = os.environ.get('CXX', '').strip() or 'g++'
    if IS_SWITCHED_OFF:
        said = os.environ[_SWITCH]
        return [], f'{_SWITCH}={said} switches kernels off'
    try:
        command = shlex.split(named)
    except ValueError:
        command = [named]
    if shutil.which(command[0]) is None:
        return [], f'there is no C++ compiler {named!r}; CXX names another'
    return command, None


# Looked up once: a compiler of graphs cannot follow the look-up.
IS_SWITCHED_OFF = _is_switched_off()
_COMPILER, _MISSING = _find_compiler()


def why_no_compiler() -> Reason:
    """Why kernels cannot be compiled on this machine, or None."""
    return _MISSING


def build() -> Path:
    """The compiled library, made if need be.

    Raises:
        OSError: If files or the compiler fail.
        RuntimeError: If the user has no home and names no cache.
        subprocess.CalledProcessError: If the sources do not compile.
    """
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
