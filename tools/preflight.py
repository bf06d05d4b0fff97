"""Check the requirements of a tool; every tool imports this module first.

In a clone, tools import mmattn from the clone, installed or not. A missing or
mixed stack, and Ctrl-C during the imports, end with a one-line message.
"""

import os
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'mmattn' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))
TOOL = Path(sys.argv[0]).name

from mmattn.stack import check_stack  # noqa: E402


def report(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Print an exception that ends the process."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print(f'{TOOL}: interrupted', file=sys.stderr, flush=True)
    os._exit(130)


sys.excepthook = report
try:
    check_stack()
except ImportError as missing:
    print(f'{TOOL}: error: {missing}', file=sys.stderr)
    sys.exit(2)
