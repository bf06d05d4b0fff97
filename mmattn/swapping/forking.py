"""Run functions in copies of this process, each within a time limit.

What is imported already costs nothing again, and what breaks a copy - a
crash, a wait without end - does not break this process.
"""

import contextlib
import gc
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator

from .coverage_page import FAILED

Call = Callable[[], dict]


def run_forked(
    calls: Iterable[tuple[str, Call]], seconds: float, jobs: int = 1
) -> Iterator[tuple[str, dict]]:
    """Run functions, some at a time.

    Args:
        calls: Names and functions that return dicts which json can hold. The
            next one is asked for when there is room for it.
        seconds: Time limit of each.
        jobs: How many run at a time. Defaults to 1.

    Yields:
        The names, in the order in which their functions end, and what they
        returned, or a failed row; ``seconds`` and ``cpu`` that it took.
    """
    waiting = iter(calls)
    running: dict[int, _Copy] = {}
    while True:
        while len(running) < jobs:
            name, call = next(waiting, ('', None))
            if call is None:
                break
            copy = _Copy(name, call, seconds)
            running[copy.pipe] = copy
        if not running:
            return
        left = min(copy.end for copy in running.values()) - time.monotonic()
        ready, _, _ = select.select(list(running), [], [], max(left, 0))
        for pipe in list(running):
            copy = running[pipe]
            if copy.is_done(pipe in ready):
                del running[pipe]
                yield copy.name, copy.finish()


class _Copy:
    """A copy of this process that runs one function."""

    def __init__(self, name: str, call: Call, seconds: float) -> None:
        self.name = name
        self.start = time.monotonic()
        self.end = self.start + seconds
        self.text = b''
        self.pipe, writing = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(self.pipe)
            _work(call, writing)
        os.close(writing)

    def is_done(self, has_news: bool) -> bool:
        """Read what it wrote; end it when its time is over."""
        if has_news:
            part = os.read(self.pipe, 1 << 16)
            self.text += part
            return not part
        if time.monotonic() < self.end:
            return False
        os.kill(self.child, signal.SIGKILL)
        return True

    def finish(self) -> dict:
        """Wait for its end and read its row."""
        os.close(self.pipe)
        _, status, usage = os.wait4(self.child, 0)
        if self.text and status == 0:
            row = json.loads(self.text)
        else:
            killed = os.WIFSIGNALED(status)
            row = dict(
                status=FAILED,
                reason='timeout' if killed else 'crash',
                detail=f'the process ended so: {status}',
            )
        row['seconds'] = round(time.monotonic() - self.start, 2)
        row['cpu'] = round(usage.ru_utime + usage.ru_stime, 2)
        return row


def _work(call: Call, pipe: int) -> None:
    """The body of the copy; it never returns."""
    status = 1
    with contextlib.suppress(BaseException):
        gc.disable()  # the copy does not live long enough to need it
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        text = json.dumps(call()).encode()
        while text:
            text = text[os.write(pipe, text) :]
        status = 0
    os._exit(status)
