"""Report user errors in one message, without a traceback."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from mmattn.errors import UsageError, printable

# Errors raised below these functions are mistakes in a config or in a file,
_USER_INPUT = (
    'mmengine.',
    'mmattn.analysis.targets.',
    'mmattn.checkpoints.',
    'mmattn.cli.evaluation.',
    'mmattn.cli.run_config.',
    'mmattn.cli.single_image.',
    'mmattn.engine.training.',
    'mmattn.swapping.',
    'mmattn.visualization.attention.images.',
)
# but not below these: the model runs.
_STEPS = ('train_step', 'val_step', 'test_step', 'run_features')
SHOW_TRACEBACK = 'MMATTN_TRACEBACK=1 shows where it was raised'
INTERRUPTED = 130  # exit status after Ctrl-C, as in shells


def run_command(main: Callable[[], None]) -> None:
    """Run the body of a tool and report user errors in one message.

    Usage errors, unreadable checkpoints, and any error of mmengine outside of
    the steps of a model exit with status 2. If ``MMATTN_TRACEBACK`` is set,
    those with another cause keep their traceback. Ctrl-C exits with status
    130. Other errors are bugs and are raised.

    Of several processes only the first of each machine prints the message.
    The others wait: the launcher stops all of them as soon as one ends, and
    the message would be lost.

    Args:
        main: The tool's body, without arguments.
    """
    try:
        main()
    except KeyboardInterrupt:
        _exit_interrupted()
    except UsageError as error:
        if error.__cause__ is not None and os.environ.get('MMATTN_TRACEBACK'):
            raise
        _exit(f'error: {error}')
    except Exception as error:
        if is_interrupt(error):
            _exit_interrupted()
        functions = [
            f'{frame.f_globals.get("__name__")}.{frame.f_code.co_name}'
            for frame, _ in traceback.walk_tb(error.__traceback__)
        ]
        is_bug = any(name.endswith(_STEPS) for name in functions) or not any(
            name.startswith(_USER_INPUT) for name in functions
        )
        if is_bug or os.environ.get('MMATTN_TRACEBACK'):
            raise
        _exit(f'error: {type(error).__name__}: {error}\n{SHOW_TRACEBACK}')


def is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error; mmengine turns it into others."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _exit_interrupted() -> None:
    # A launcher repeats the signal: it must not interrupt the exit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _exit('interrupted', INTERRUPTED)


def _exit(message: str, status: int = 2) -> None:
    if int(os.environ.get('LOCAL_RANK', 0)) == 0:
        name = os.path.basename(sys.argv[0])
        print(f'{name}: {printable(message)}', file=sys.stderr, flush=True)
    elif status != INTERRUPTED:
        time.sleep(60)
    sys.exit(status)
