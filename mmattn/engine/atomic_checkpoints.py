"""Write checkpoints so that a killed training or a full disk loses nothing.

mmengine removes old checkpoints before it writes a new one, and writes in
place. After :func:`make_checkpoints_atomic`, files appear complete or not at
all, and old ones are removed only afterwards. The disk needs space for one
checkpoint more.
"""

import builtins
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmattn.errors import UsageError

LAST = 'last_checkpoint'
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_PART = '.part'


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file under a temporary name and rename it.

    Args:
        path: The file; it is replaced if it exists.
        content: What to write.

    Raises:
        OSError: If it cannot be written; an existing file is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}{_PART}')
    try:
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_atomically(filepath, obj)


def make_checkpoints_atomic(runner: Runner) -> None:
    """Change the checkpoint hooks of a runner, subclasses included.

    Args:
        runner: A runner that has not started.
    """
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    hooks = [x for x in runner.hooks if isinstance(x, CheckpointHook)]
    for hook in hooks:
        _replace_open(type(hook))
    guard = _RemoveAfterSaving(hooks, runner.save_checkpoint)
    runner.register_hook(guard, priority='LOWEST')
    runner.save_checkpoint = guard.save


class _RemoveAfterSaving(Hook):
    """Removes old checkpoints once the new one is complete."""

    def __init__(self, hooks: list[CheckpointHook], save: Any) -> None:
        self._hooks = hooks
        self._save = save
        self._work_dir = ''

    def before_train(self, runner: Runner) -> None:
        """Defer the removals of the checkpoint hooks."""
        self._work_dir = runner.work_dir
        for hook in self._hooks:
            hook.file_backend = _DeferredRemovals(hook.file_backend)
            folder = Path(str(hook.out_dir))
            if is_main_process() and folder.is_dir():
                for partial in folder.glob(f'.*{_PART}'):  # of a killed run
                    partial.unlink(missing_ok=True)

    def save(self, out_dir: str, filename: str, *args: Any, **kw: Any) -> None:
        """Save a checkpoint, then remove the ones that it replaces."""
        self._save(out_dir, filename, *args, **kw)
        if not is_main_process():
            return
        for hook in self._hooks:
            path = hook.file_backend.join_path(out_dir, filename)
            if path == hook.last_ckpt:
                # Before the removal: it may name a file that is removed.
                write_atomically(Path(self._work_dir, LAST), path.encode())
            hook.file_backend.remove_now(keep=path)


class _DeferredRemovals:
    """A file backend that removes files later."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._removals: list[tuple[Any, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Remove a file later."""
        self._removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        """Remove a folder later."""
        self._removals.append((self._backend.rmtree, path))

    def remove_now(self, keep: str) -> None:
        """Do the removals, but not of the file that was written."""
        for remove, path in self._removals:
            if path != keep and self._backend.exists(path):
                remove(path)
        self._removals.clear()


def _replace_open(kind: type[CheckpointHook]) -> None:
    """Let the saving functions of a hook write LAST atomically."""
    for cls in kind.__mro__:
        function = cls.__dict__.get('_save_checkpoint_with_step')
        if function is not None:
            function.__globals__['open'] = _open


def _open(file: Any, mode: str = 'r', *args: Any, **kwargs: Any) -> Any:
    if mode == 'w' and os.path.basename(str(file)) == LAST:
        return _atomic_text(file)
    return builtins.open(file, mode, *args, **kwargs)


@contextmanager
def _atomic_text(path: str) -> Iterator[Any]:
    lines: list[str] = []

    class Writer:
        write = staticmethod(lines.append)

    yield Writer
    write_atomically(path, ''.join(lines).encode())


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that there is no space left."""
    return isinstance(error, OSError) and error.errno in _NO_SPACE


@contextmanager
def report_full_disk(work_dir: str) -> Iterator[None]:
    """Turn an error about a full disk into a message.

    Args:
        work_dir: Folder of the run.

    Raises:
        UsageError: If the disk is full.
    """
    # Otherwise each line of the log prints a traceback.
    raise_exceptions, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        _close_logs()
        raise UsageError(
            f'the disk of {error.filename or work_dir} is full. '
            f'{_describe_last(work_dir)}Free some space, then continue with '
            'tools/train.py --resume'
        ) from error
    finally:
        logging.raiseExceptions = raise_exceptions


def _describe_last(work_dir: str) -> str:
    with suppress(OSError):
        last = Path(work_dir, LAST).read_text()
        if os.path.isfile(last):
            return f'The last checkpoint is {last}. '
    return ''


def _close_logs() -> None:
    for reference in list(logging._handlerList):
        handler = reference()
        if isinstance(handler, logging.FileHandler):
            with suppress(OSError):
                handler.close()
