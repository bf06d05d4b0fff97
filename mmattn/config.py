"""Read a config of mmdet, mmseg or mmpretrain."""

import difflib
import importlib.util
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmattn.errors import UsageError
from mmattn.stack import CODEBASES
from mmattn.zoo import find_model

SYNC_NORMS = ('SyncBN', 'MMSyncBN', 'mmcv.SyncBN', 'mmcv.MMSyncBN')


def read_config(
    path: str, options: dict | None, needs: tuple[str, ...], purpose: str
) -> Config:
    """Read a config file, apply overrides and check what it has to hold.

    Args:
        path: The file, or the name of one of our models.
        options: Overrides, dotted key to value.
        needs: Fields without which the config does not serve the purpose.
        purpose: For the message: ``'training'`` or ``'testing'``.

    Returns:
        The config, with ``filename`` set.

    Raises:
        UsageError: If the file is missing or does not evaluate, if an
            override does not fit, if a field is missing, or if the codebase
            of its ``default_scope`` is not installed.
    """
    if not os.path.isfile(path):
        path = _config_of(path, purpose)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is code: it raises what it likes
        raise UsageError(
            f'cannot read the config {path}: {type(error).__name__}: {error}'
        ) from error
    try:
        cfg.merge_from_dict(options or {})
    except (AttributeError, LookupError, TypeError) as error:
        raise UsageError(
            f'--cfg-options {" ".join(options)} do not fit {path}: '
            f'{type(error).__name__}: {error}'
        ) from error
    missing = [name for name in needs if cfg.get(name) is None]
    if missing:
        raise UsageError(
            f'{purpose} expects {", ".join(needs)} in the '
            f'config, got no {", ".join(missing)} in {path}'
        )
    scope = cfg.get('default_scope')
    if scope in CODEBASES and importlib.util.find_spec(scope) is None:
        raise UsageError(
            f'{path} is a config of {scope} (its default_scope), which is '
            'not installed; `python -m mmattn` says how to install it'
        )
    return cfg


def replace_sync_norms(node: Any) -> int:
    """Replace SyncBN by BN everywhere in a nested config.

    Args:
        node: Dicts, lists and tuples in any nesting, changed in place.

    Returns:
        How many layer configs were changed.
    """
    replaced = 0
    if isinstance(node, dict):
        if node.get('type') in SYNC_NORMS:
            node['type'] = 'BN'
            replaced += 1
        children = list(node.values())
    else:
        children = node if isinstance(node, (list, tuple)) else []
    return replaced + sum(replace_sync_norms(child) for child in children)


def _config_of(name: str, purpose: str) -> str:
    try:
        return str(find_model(name).config)
    except ValueError as error:
        raise UsageError(
            f'{purpose} expects a config file, got {name!r}, which does not '
            f'exist, nor as the name of a model{_suggest(name)}'
        ) from error


def _suggest(path: str) -> str:
    # Whoever types a config's name mostly has it nearly right.
    name = os.path.basename(path)
    known = {file.name: file for file in Path('configs').glob('*/*.py')}
    close = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean {known[close[0]]}?' if close else ''
