"""Compile C++ sources for the CPU at hand, once, into a private folder.

A library is executed when it is loaded. So one that is found in the cache is
used only if it and its folder belong to the user, nobody else can write to
them, and its content has the sha256 that its name ends in.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_LOGGER = logging.getLogger(__name__)
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
# A quiet machine compiles in some seconds.
_MOST_SECONDS = 300.0
# Libraries of other sources, compilers or CPUs, since they were last loaded.
_UNUSED_SECONDS = 30 * 24 * 3600
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH


class BuildError(Exception):
    """Says why there is no library, and what to do."""


def find_compiler() -> list[str]:
    """The command of the C++ compiler: ``CXX``, or ``g++``.

    Raises:
        BuildError: If there is none.
    """
    named = os.environ.get('CXX', '').strip() or 'g++'
    try:
        command = shlex.split(named)
    except ValueError:
        command = [named]
    if shutil.which(command[0]) is None:
        raise BuildError(
            f'there is no C++ compiler {named!r}; install GCC (on Debian: apt '
            'install g++) or name another one in CXX'
        )
    return command


def build_library(name: str, folder: Path, include: Sequence[Path]) -> Path:
    """The library of all sources in a folder, compiled if need be.

    Args:
        name: First part of the file's name.
        folder: Holds the ``*.cpp`` and their headers.
        include: Further folders of headers.

    Raises:
        BuildError: If there is none.
    """
    compiler = find_compiler()
    sources = sorted(folder.glob('*.cpp'))
    headers = [x for place in (folder, *include) for x in place.glob('*.h')]
    key = _digest_of_inputs(compiler, [*sources, *sorted(headers)])
    prefix = f'{name}-{key[:16]}-'
    cache = _cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_private(cache, stat.S_ISDIR)
        for library in sorted(cache.glob(f'{prefix}*.so')):
            if _is_intact(library):
                with suppress(OSError):  # a cache that cannot be written
                    os.utime(library)
                return library
            library.unlink()
        return _compile(cache, prefix, compiler, sources, include)
    except OSError as error:
        raise BuildError(
            f'the cache {cache} is of no use ({error}); name another one in '
            'XDG_CACHE_HOME'
        ) from error


def _compile(
    cache: Path,
    prefix: str,
    compiler: Sequence[str],
    sources: Sequence[Path],
    include: Sequence[Path],
) -> Path:
    # Without a handler, only warnings are seen; nobody should wonder.
    _LOGGER.warning('Compiling kernels for this CPU, once, into %s', cache)
    flags = [*_FLAGS, *(f'-I{place}' for place in include)]
    with tempfile.TemporaryDirectory(dir=cache, prefix='build-') as work:
        objects = [Path(work, f'{source.stem}.o') for source in sources]
        deadline = time.monotonic() + _MOST_SECONDS
        _run_all(
            [
                [*compiler, *flags, '-c', str(source), '-o', str(target)]
                for source, target in zip(sources, objects)
            ],
            deadline,
        )
        built = Path(work, 'library.so')
        link = [*compiler, '-shared', *map(str, objects), '-o', str(built)]
        _run_all([[*link, '-fopenmp']], deadline)
        built.chmod(0o700)
        with built.open('rb') as file:
            os.fsync(file.fileno())
        library = cache / f'{prefix}{_sha256(built)}.so'
        # Another process that compiles at the same time does no harm.
        built.replace(library)
    _remove_unused(cache)
    return library


def _check_private(path: Path, is_kind) -> None:
    """Raise PermissionError if somebody else may have written to a path."""
    status = path.lstat()  # of a link itself
    if not is_kind(status.st_mode):
        raise PermissionError(f'{path} is a link or no regular file')
    if status.st_uid != os.geteuid():
        raise PermissionError(f'{path} belongs to another user')
    if status.st_mode & _OTHERS_CAN_WRITE:
        raise PermissionError(f'others can write to {path}; chmod go-w it')


def _is_intact(library: Path) -> bool:
    """Whether a file in the cache is what was compiled, byte by byte."""
    try:
        _check_private(library, stat.S_ISREG)
    except PermissionError:
        return False
    return library.stem.endswith(_sha256(library))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _remove_unused(cache: Path) -> None:
    """Remove what nobody has loaded for long, and what builds left behind.

    Who has a library loaded keeps it; who is about to load it compiles anew.
    """
    oldest = time.time() - _UNUSED_SECONDS
    for path in cache.iterdir():
        with suppress(OSError):  # another process was faster
            if path.lstat().st_mtime >= oldest:
                continue
            if path.suffix == '.so':
                path.unlink()
            elif path.name.startswith('build-'):
                shutil.rmtree(path)


def _run_all(commands: Sequence[Sequence[str]], deadline: float) -> None:
    """Run commands side by side; BuildError if one fails or takes too long.

    Compilers start further processes: each command gets a group of its own,
    which ends as a whole.
    """
    running = [
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors='replace',
            start_new_session=True,
        )
        for command in commands
    ]
    try:
        for process in running:
            left = max(deadline - time.monotonic(), 0)
            error = process.communicate(timeout=left)[1]
            if process.returncode:
                raise BuildError(
                    f'{process.args[0]} failed: {error.strip()[-500:]}'
                )
    except subprocess.TimeoutExpired:
        raise BuildError(
            f'{commands[0][0]} took more than {_MOST_SECONDS:.0f} s'
        ) from None
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stderr.close()


def _digest_of_inputs(compiler: Sequence[str], files: Sequence[Path]) -> str:
    """Changes with the sources, the compiler, its flags and the CPU."""
    status = Path(shutil.which(compiler[0])).stat()
    digest = hashlib.sha256(' '.join((*compiler, *_FLAGS)).encode())
    digest.update(f'{status.st_size} {status.st_mtime_ns}'.encode())
    digest.update(_cpu().encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _cpu() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    wanted = ('flags', 'Features', 'model name', 'cpu family', 'model\t')
    return '\n'.join(sorted({x for x in lines if x.startswith(wanted)}))


def _cache_folder() -> Path:
    home = os.environ.get('XDG_CACHE_HOME')
    try:
        return Path(home or Path.home() / '.cache') / 'mmattn' / 'kernels'
    except RuntimeError as error:
        raise BuildError(
            f'there is no folder for the cache ({error}); name one in '
            'XDG_CACHE_HOME'
        ) from error
