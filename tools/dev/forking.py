"""Run functions in forked processes, each with a time limit.

Children share what is already imported, and a crash or a hang of a child does
not affect this process.
"""

import contextlib
import gc
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator

Call = Callable[[], dict]


def run_forked(
    calls: Iterable[tuple[str, Call]], seconds: float, jobs: int = 1
) -> Iterator[tuple[str, dict]]:
    """Run functions, some at a time.

    Args:
        calls: Names and functions that return JSON-compatible dicts, consumed
            as processes become free.
        seconds: Time limit of each.
        jobs: How many run at a time. Defaults to 1.

    Yields:
        The names, in the order in which their functions end, and what they
        returned, or a ``status`` of ``'failed'``; with ``seconds`` and
        ``cpu`` time.
    """
    waiting = iter(calls)
    running: dict[int, _Child] = {}
    while True:
        while len(running) < jobs:
            name, call = next(waiting, ('', None))
            if call is None:
                break
            child = _Child(name, call, seconds)
            running[child.pipe] = child
        if not running:
            return
        left = min(child.end for child in running.values()) - time.monotonic()
        ready, _, _ = select.select(list(running), [], [], max(left, 0))
        for pipe in list(running):
            child = running[pipe]
            if child.is_done(pipe in ready):
                del running[pipe]
                yield child.name, child.finish()


class _Child:
    """A forked process that runs one function."""

    def __init__(self, name: str, call: Call, seconds: float) -> None:
        self.name = name
        self.start = time.monotonic()
        self.end = self.start + seconds
        self.text = b''
        self.pipe, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            _work(call, writing)
        os.close(writing)

    def is_done(self, is_ready: bool) -> bool:
        """Read its output; kill it after its time limit."""
        if is_ready:
            part = os.read(self.pipe, 1 << 16)
            self.text += part
            return not part
        if time.monotonic() < self.end:
            return False
        os.kill(self.pid, signal.SIGKILL)
        return True

    def finish(self) -> dict:
        """Wait for its end and return its result."""
        os.close(self.pipe)
        _, status, usage = os.wait4(self.pid, 0)
        if self.text and status == 0:
            row = json.loads(self.text)
        else:
            row = dict(
                status='failed',
                reason='timeout' if os.WIFSIGNALED(status) else 'crash',
                detail=f'the process ended with status {status}',
            )
        row['seconds'] = round(time.monotonic() - self.start, 2)
        row['cpu'] = round(usage.ru_utime + usage.ru_stime, 2)
        return row


def _work(call: Call, pipe: int) -> None:
    """Body of the child; never returns."""
    status = 1
    with contextlib.suppress(BaseException):
        gc.disable()  # too short-lived to need it
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        text = json.dumps(call()).encode()
        while text:
            text = text[os.write(pipe, text) :]
        status = 0
    os._exit(status)
