"""Mistakes of whoever typed a command, told in one message."""

import os
import pickle
import re
import struct
import sys
import time
import traceback
from collections.abc import Callable

from mmattn.errors import UsageError

# What torch.load says of a file that wants more than tensors.
_CODE = r'GLOBAL \S+|reduce for|create new object|Can only'
# What it raises for bytes that are no checkpoint, or only half of one.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    IndexError,
    KeyError,
    ValueError,
    struct.error,
)


def run_command(main: Callable[[], None]) -> None:
    """Run the body of a tool; a usage error ends it with exit status 2.

    So does a checkpoint that cannot be read; other errors pass.

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
    except _DAMAGE as error:
        if not _comes_from_loading(error):
            raise
        _exit_with(UsageError(_explain_file(error)))


def _comes_from_loading(error: Exception) -> bool:
    return any(
        frame.f_code.co_name == 'load'
        and frame.f_globals.get('__name__') == 'torch.serialization'
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _explain_file(error: Exception) -> str:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and re.search(_CODE, text):
        return (
            'the checkpoint wants to run code when it is read: nothing of it '
            'was run or loaded. If you trust who made it, save its weights '
            'alone where it comes from, '
            "torch.save(model.state_dict(), 'weights.pth')"
        )
    said = re.search(r'Unpickler error:\s+(.+)', text) or re.search(
        r'(.+)', text
    )
    reason = said[1][:200] if said else type(error).__name__
    return (
        'the checkpoint is cut short, damaged or no checkpoint '
        f'({reason}); download it again'
    )


def _exit_with(error: Exception) -> None:
    if int(os.environ.get('LOCAL_RANK', 0)) > 0:
        time.sleep(60)
    else:
        name = os.path.basename(sys.argv[0])
        print(f'{name}: error: {error}', file=sys.stderr, flush=True)
    sys.exit(2)
