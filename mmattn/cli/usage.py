"""Report a user's mistakes in one message, without a traceback."""

import os
import sys
import time
import traceback
from collections.abc import Callable

from mmattn.errors import UsageError, printable

# Errors raised below these functions are mistakes in a config or in a file.
_USER_INPUT = (
    'mmengine.registry.build_functions.build_from_cfg',
    'mmengine.runner.checkpoint.',
    'mmattn.checkpoints.',
)
INTERRUPTED = 130  # exit status after Ctrl-C, as in shells


def run_command(main: Callable[[], None]) -> None:
    """Run the body of a tool and report mistakes in one message.

    A usage error, a checkpoint that cannot be read, and any error while a
    part of a config is built end it with exit status 2; if the variable
    ``MMATTN_TRACEBACK`` is set, the last keeps its traceback. Ctrl-C ends it
    with status 130. Other errors are bugs and pass.

    Of several processes only the first of each machine prints the message.
    The others wait: the launcher stops all of them as soon as one ends, and
    the message would be lost.

    Args:
        main: The tool's body, without arguments.
    """
    try:
        main()
    except KeyboardInterrupt:
        _exit('interrupted', INTERRUPTED)
    except UsageError as error:
        _exit(f'error: {error}')
    except Exception as error:
        functions = [
            f'{frame.f_globals.get("__name__")}.{frame.f_code.co_name}'
            for frame, _ in traceback.walk_tb(error.__traceback__)
        ]
        if os.environ.get('MMATTN_TRACEBACK') or not any(
            name.startswith(_USER_INPUT) for name in functions
        ):
            raise
        _exit(
            f'error: {type(error).__name__}: {error}\n'
            'MMATTN_TRACEBACK=1 shows where it was raised'
        )


def _exit(message: str, status: int = 2) -> None:
    if int(os.environ.get('LOCAL_RANK', 0)) == 0:
        name = os.path.basename(sys.argv[0])
        print(f'{name}: {printable(message)}', file=sys.stderr, flush=True)
    elif status != INTERRUPTED:
        time.sleep(60)
    sys.exit(status)
