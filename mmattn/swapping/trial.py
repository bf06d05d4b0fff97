"""One config of a coverage run, tried in a process of its own."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmattn.errors import UsageError

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
from .samples import loads_masks
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
        was checked, whether its result is ``shared``, names of the mistakes
        of the codebase that were ``mended`` for it, and the ``size`` of the
        images.
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
    checked = check_model(config, source.host, find_network(config))
    row.update(
        status=PASSED,
        reason='' if checked.has_loss else 'no loss',
        mended=[mistake.name for mistake in checked.mended],
        size=checked.size,
    )


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
        [host, shrink_model(config), loads_masks(config)],
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
