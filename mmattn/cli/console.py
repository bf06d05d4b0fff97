"""Keeps the terminal for what a person should read."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def output_to_file(path: str | Path) -> Iterator[TextIO]:
    """Send everything that the process prints to a file.

    That includes what libraries written in C print and warnings, but not an
    exception that leaves the block: it is raised as usual, and by then the
    terminal is back.

    Args:
        path: File to append to.

    Yields:
        A stream to what standard output was before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    try:
        with (
            open(path, 'a') as log,
            open(os.dup(saved[0]), 'w', buffering=1) as terminal,
        ):
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                yield terminal
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os.dup2(saved[0], 1)
                os.dup2(saved[1], 2)
    finally:
        for descriptor in saved:
            os.close(descriptor)
