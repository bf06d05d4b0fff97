"""One config of a coverage run, tried in a process of its own."""

import contextlib
import gc
import hashlib
import json
import os
import re
import select
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmattn.engine.usage import UsageError

from .checking import CheckFailed, check_model, shrink_model
from .coverage_page import (
    FAILED,
    PASSED,
    REFUSED,
    SOURCE_FAILS,
    UNCHECKED,
)
from .edits import apply_edits
from .families import find_family
from .planning import plan_swap
from .refusal import SwapRefused
from .refusals import find_network
from .source import read_source
from .swap import make_head
from .writing import write_config

# What a codebase says of a package, or an operation, that is not there.
_ABSENT = re.compile(
    r'is not installed|No module named|please install|urlopen error|'
    r'implementation for device cpu not found'
)


def try_swap(name: str, backbone: str, known: dict[str, dict]) -> dict:
    """Swap the backbone of one config, write it, read it, and check it.

    Args:
        name: The config, ``host::path``.
        backbone: Name of the new backbone.
        known: Results of models that were checked before, by their key.

    Returns:
        A row of the journal: ``status``, ``reason``, ``detail``,
        ``algorithm``, ``strides`` of the old maps, ``key`` of the model that
        was checked, and whether its result is ``shared``.
    """
    row: dict[str, Any] = {}
    try:
        _try_swap(name, backbone, known, row)
    except SwapRefused as error:
        row.update(status=REFUSED, reason=error.reason, detail=str(error))
    except CheckFailed as error:
        reason = str(error).partition(':')[0]
        status = FAILED
        if _ABSENT.search(str(error)):
            status, reason = UNCHECKED, 'something is not installed here'
        elif _fails_anyway(name):
            reason = SOURCE_FAILS
        row.update(status=status, reason=reason, detail=str(error))
    except UsageError as error:
        row.update(status=REFUSED, reason='unreadable', detail=str(error))
    except Exception as error:  # a mistake of ours: counted as one
        text = f'{type(error).__name__}: {error}'
        row.update(status=FAILED, reason='traceback', detail=text)
    row['detail'] = ' '.join(str(row.get('detail', '')).split())[:300]
    return row


def _try_swap(
    name: str, backbone: str, known: dict[str, dict], row: dict
) -> None:
    source = read_source(name)
    model = source.config.get('model')
    row['algorithm'] = str((model or {}).get('type'))
    family = find_family(backbone)
    edits = plan_swap(
        source.config, source.host, family, on_levels=_noting(row)
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'swapped.py'
        write_config(source, edits, out, make_head(source, family), False)
    config = apply_edits(source.config, edits)
    row['key'] = key = _key(config, source.host)
    if key in known:
        row.update(known[key], shared=True)
        return
    has_loss = check_model(config, source.host, find_network(config))
    row.update(status=PASSED, reason='' if has_loss else 'no loss')


def _fails_anyway(name: str) -> bool:
    """Whether a config fails the check with its own backbone too."""
    source = read_source(name)
    try:
        check_model(source.config, source.host, find_network(source.config))
    except CheckFailed:
        return True
    return False


def _noting(row: dict) -> Callable[[list], None]:
    """Note what the old backbone gives, also where the swap is refused."""

    def note(levels: list) -> None:
        row['strides'] = [level.stride for level in levels]

    return note


def _key(config: dict, host: str) -> str:
    text = json.dumps(
        [host, shrink_model(config)], sort_keys=True, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_forked(call: Callable[[], dict], seconds: float) -> dict:
    """Run a function in a copy of this process, within a time limit.

    What is imported already costs nothing again, and what breaks the copy -
    a crash, a wait without end - does not break this process.

    Args:
        call: Returns a dict that json can hold.
        seconds: Time limit.

    Returns:
        What it returned, or a failed row.
    """
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(call, writing)
    os.close(writing)
    text = b''
    with os.fdopen(reading, 'rb', buffering=0) as pipe:
        while True:
            left = start + seconds - time.monotonic()
            ready, _, _ = select.select([pipe], [], [], max(left, 0))
            if not ready:
                os.kill(child, signal.SIGKILL)
                break
            part = pipe.read(1 << 16)
            if not part:
                break
            text += part
    _, status, usage = os.wait4(child, 0)
    if text and status == 0:
        cpu = round(usage.ru_utime + usage.ru_stime, 2)
        return dict(json.loads(text), cpu=cpu)
    reason = 'timeout' if os.WIFSIGNALED(status) else 'crash'
    return dict(
        status=FAILED, reason=reason, detail=f'the process ended so: {status}'
    )


def _work(call: Callable[[], dict], pipe: int) -> None:
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
