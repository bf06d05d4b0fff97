"""Redirect the output of libraries to a file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def output_to_file(path: str | Path) -> Iterator[TextIO]:
    """Redirect everything that the process prints to a file.

    That includes warnings and the output of C libraries. When an exception
    leaves the block, the terminal is restored first.

    Args:
        path: File to append to.

    Yields:
        A stream to the former standard output.
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
