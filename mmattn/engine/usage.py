"""Mistakes of whoever typed a command, told in one message."""

import os
import pickle
import sys
import time
from collections.abc import Callable


class UsageError(Exception):
    """A command that cannot run as it was typed: the message says why."""


def run_command(main: Callable[[], None]) -> None:
    """Run the body of a tool; a usage error ends it with exit status 2.

    Of several processes only the first of each machine prints the message.
    The others wait, since the launcher stops all of them as soon as one
    ends, and the message would be lost.

    Args:
        main: The tool's body, without arguments.
    """
    try:
        main()
    except UsageError as error:
        _exit_with(error)
    except pickle.UnpicklingError:
        _exit_with(
            UsageError(
                'the checkpoint wants to run code when it is read: nothing '
                'of it was run or loaded. If you trust where it comes from, '
                'set TORCH_FORCE_WEIGHTS_ONLY_LOAD=0'
            )
        )


def _exit_with(error: Exception) -> None:
    if int(os.environ.get('LOCAL_RANK', 0)) > 0:
        time.sleep(60)
    else:
        name = os.path.basename(sys.argv[0])
        print(f'{name}: error: {error}', file=sys.stderr, flush=True)
    sys.exit(2)
