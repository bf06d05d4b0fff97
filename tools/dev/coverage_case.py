"""Swap the backbone of one shipped config and check the result."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cheap_build import shared_weights
from coverage_page import FAILED, PASSED, SOURCE_FAILS, UNCHECKED, UNSUPPORTED
from fakes import fake_dependencies
from optimizer_check import describe_optimizer
from upstream_bugs import UpstreamBug, find_bug, work_around

from mmattn.errors import UsageError
from mmattn.swapping import (
    ChannelMismatch,
    UnsupportedSwap,
    check_channels,
    find_family,
    planning,
)
from mmattn.swapping.checking import CheckFailed, run_check, shrink_model
from mmattn.swapping.edits import apply_edits, get_at, plain
from mmattn.swapping.samples import SIZES, loads_masks
from mmattn.swapping.source import Source, read_source
from mmattn.swapping.swap import make_header
from mmattn.swapping.unsupported import check_types, find_network
from mmattn.swapping.writing import write_config

_MAX_CLASSES = 6
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
    network = get_at(source.config, find_network(source.config))
    check_types(source.config, network)
    maps = planning.probe_backbone(network['backbone'], source.codebase)
    row['strides'] = [each.stride for each in maps]
    edits = planning.plan_swap(source.config, source.codebase, family)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'swapped.py'
        write_config(source, edits, out, make_header(source, family), False)
    config = apply_edits(source.config, edits)
    try:
        check_channels(config, source.codebase)
    except ChannelMismatch as error:  # it must accept working models
        raise CheckFailed(f'channels: {error}') from error
    _check_optimizer(source, config, known, row)
    config = reduce_classes(config)
    key = _key(source.codebase, shrink_model(config), loads_masks(config))
    row['key'] = key
    if key in known:
        row.update(known[key], shared=True)
    else:
        row.update(status=PASSED, **check_model(config, source.codebase))


def check_model(config: dict, codebase: str) -> dict:
    """Check a model as the tool does, with fakes and workarounds.

    Returns:
        ``reason``: ``'no loss'`` if there is none; names of ``bugs`` that were
        worked around; the ``size`` of the images.

    Raises:
        CheckFailed: If a step fails.
    """
    bugs: list[UpstreamBug] = []
    sizes = list(SIZES if codebase == 'mmdet' else SIZES[:1])
    network = find_network(config)

    @contextmanager
    def prepare(model: dict) -> Iterator[None]:
        fakes = fake_dependencies(model, codebase)
        with shared_weights(), fakes, work_around(bugs, model):
            yield

    while True:
        try:
            has_loss = run_check(config, codebase, network, sizes[0], prepare)
            break
        except CheckFailed as error:
            bug = find_bug(codebase, config['model'], str(error), bugs)
            if bug is not None:
                bugs.append(bug)
            elif len(sizes) > 1:
                del sizes[0]
            else:
                raise
    return dict(
        reason='' if has_loss else 'no loss',
        bugs=[bug.name for bug in bugs],
        size=sizes[0],
    )


def reduce_classes(config: dict) -> dict:
    """Reduce classes, where nothing else depends on their number.

    More configs then have the same model, which is checked once.
    """
    model = plain(config['model'])
    if config.get('data_preprocessor'):
        preprocessor = plain(config['data_preprocessor'])
        model.setdefault('data_preprocessor', preprocessor)
    if not _has_classwise_options(model):
        _reduce_classes(model)
    return dict(config, model=model)


def _has_classwise_options(node: Any) -> bool:
    if isinstance(node, dict):
        if any(
            isinstance(node.get(key), (list, tuple))
            for key in ('class_weight', 'code_weights')
        ) or any('things' in key or 'stuff' in key for key in node):
            return True
        node = list(node.values())
    return isinstance(node, (list, tuple)) and any(
        map(_has_classwise_options, node)
    )


def _reduce_classes(node: Any) -> None:
    if isinstance(node, dict):
        if isinstance(node.get('num_classes'), int):
            node['num_classes'] = min(node['num_classes'], _MAX_CLASSES)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            _reduce_classes(item)


def _check_optimizer(
    source: Source, config: dict, known: dict[str, dict], row: dict
) -> None:
    wrappers = [each.get('optim_wrapper') for each in (source.config, config)]
    models = [
        shrink_model(reduce_classes(each)) for each in (source.config, config)
    ]
    row['optimizer_key'] = key = _key(source.codebase, models, wrappers)
    if key not in known:
        known = {
            key: describe_optimizer(source.config, config, source.codebase)
        }
    row.update(known[key])


def _source_fails(name: str) -> bool:
    """Whether a config fails the check with its own backbone too."""
    source = read_source(name)
    try:
        check_model(reduce_classes(source.config), source.codebase)
    except CheckFailed:
        return True
    return False


def _key(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
