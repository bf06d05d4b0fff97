"""Swap the backbone of one shipped config and check the result."""

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from coverage_page import FAILED, PASSED, SOURCE_FAILS, UNCHECKED, UNSUPPORTED
from optimizer_check import describe_optimizer

from mmattn.errors import UsageError
from mmattn.swapping import (
    ChannelMismatch,
    UnsupportedSwap,
    check_channels,
    find_family,
)
from mmattn.swapping.checking import CheckFailed, check_model, shrink_model
from mmattn.swapping.edits import apply_edits
from mmattn.swapping.planning import plan_swap
from mmattn.swapping.samples import loads_masks
from mmattn.swapping.source import Source, read_source
from mmattn.swapping.swap import make_header
from mmattn.swapping.unsupported import find_network
from mmattn.swapping.writing import write_config

# Errors of codebases about a missing package or operation.
_MISSING = re.compile(
    r'is not installed|No module named|please install|urlopen error|'
    r'implementation for device cpu not found'
)


def run_case(name: str, backbone: str, known: dict[str, dict]) -> dict:
    """Swap the backbone of a config, write it, read it back and check it.

    Args:
        name: The config, ``codebase::path``.
        backbone: Name of the new backbone.
        known: Results of models that were checked before, by their key.

    Returns:
        A row of the journal: ``status``, ``reason``, ``detail``,
        ``algorithm``, ``strides`` of the old maps, ``key`` of the checked
        model, ``shared`` if its result was known, names of ``bugs`` that
        were worked around, the ``size`` of the images, and the results of
        ``describe_optimizer`` with their ``optimizer_key``.
    """
    row: dict[str, Any] = {}
    try:
        _run(name, backbone, known, row)
        if row['optimizer'] == 'wrong':
            detail = row['optimizer_detail']
            row.update(status=FAILED, reason='optimizer', detail=detail)
    except UnsupportedSwap as error:
        row.update(status=UNSUPPORTED, reason=error.reason, detail=str(error))
    except CheckFailed as error:
        status, reason = FAILED, str(error).partition(':')[0]
        if _MISSING.search(str(error)):
            status, reason = UNCHECKED, 'a dependency is missing here'
        elif _source_fails(name):
            reason = SOURCE_FAILS
        row.update(status=status, reason=reason, detail=str(error))
    except UsageError as error:
        row.update(status=UNSUPPORTED, reason='unreadable', detail=str(error))
    except Exception as error:  # a bug of ours
        text = f'{type(error).__name__}: {error}'
        row.update(status=FAILED, reason='traceback', detail=text)
    row['detail'] = ' '.join(str(row.get('detail', '')).split())[:300]
    return row


def _run(name: str, backbone: str, known: dict[str, dict], row: dict) -> None:
    source = read_source(name)
    row['algorithm'] = str((source.config.get('model') or {}).get('type'))
    family = find_family(backbone)

    def note_strides(maps: list) -> None:
        row['strides'] = [each.stride for each in maps]

    edits = plan_swap(
        source.config, source.codebase, family, on_maps=note_strides
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'swapped.py'
        write_config(source, edits, out, make_header(source, family), False)
    config = apply_edits(source.config, edits)
    try:
        check_channels(config, source.codebase)
    except ChannelMismatch as error:  # it must accept working models
        raise CheckFailed(f'channels: {error}') from error
    _check_optimizer(source, config, known, row)
    key = _key(source.codebase, shrink_model(config), loads_masks(config))
    row['key'] = key
    if key in known:
        row.update(known[key], shared=True)
    else:
        checked = check_model(config, source.codebase, find_network(config))
        row.update(
            status=PASSED,
            reason='' if checked.has_loss else 'no loss',
            bugs=[bug.name for bug in checked.bugs],
            size=checked.size,
        )


def _check_optimizer(
    source: Source, config: dict, known: dict[str, dict], row: dict
) -> None:
    wrappers = [each.get('optim_wrapper') for each in (source.config, config)]
    models = [shrink_model(each) for each in (source.config, config)]
    row['optimizer_key'] = key = _key(source.codebase, models, wrappers)
    if key not in known:
        known = {
            key: describe_optimizer(source.config, config, source.codebase)
        }
    row.update(known[key])


def _source_fails(name: str) -> bool:
    """Whether a config fails the check with its own backbone too."""
    source = read_source(name)
    network = find_network(source.config)
    try:
        check_model(source.config, source.codebase, network)
    except CheckFailed:
        return True
    return False


def _key(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
