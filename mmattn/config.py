"""Read a config of mmdet, mmseg or mmpretrain."""

import ast
import difflib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

from mmengine.config import Config

from mmattn.errors import UsageError
from mmattn.stack import CODEBASES
from mmattn.zoo import find_model

SYNC_NORMS = ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')
_SPLITS = ('train', 'val', 'test')
_TYPES: dict[str, type] = {
    **dict.fromkeys(
        (
            'model',
            'data_preprocessor',
            'optim_wrapper',
            'default_hooks',
            'env_cfg',
            'auto_scale_lr',
            'randomness',
            *(f'{split}_dataloader' for split in _SPLITS),
            *(f'{split}_cfg' for split in _SPLITS),
        ),
        dict,
    ),
    **dict.fromkeys(('default_scope', 'work_dir', 'load_from'), str),
}


def read_config(
    path: str, options: dict | None, needs: tuple[str, ...], purpose: str
) -> Config:
    """Read a config file, apply overrides and check that fields are there.

    Args:
        path: The file, or the name of one of our models.
        options: Overrides, dotted key to value.
        needs: Fields that the purpose needs.
        purpose: For the message: ``'training'`` or ``'testing'``.

    Returns:
        The config, with ``filename`` and, for a config of the codebases,
        ``default_scope`` set.

    Raises:
        UsageError: If the file is missing or does not evaluate, if an
            override does not fit, if a field is missing, or if the codebase
            of the config is not installed.
    """
    if not os.path.isfile(path):
        path = _config_of(path, purpose)
    cfg = load_config(path)
    try:
        cfg.merge_from_dict(options or {})
    except (AttributeError, LookupError, TypeError) as error:
        raise UsageError(
            f'--cfg-options {" ".join(options)} do not fit {path}: '
            f'{type(error).__name__}: {error}'
        ) from error
    _check_types(cfg)
    codebase = codebase_of(cfg)
    if codebase is not None:
        cfg.default_scope = codebase  # configs of the new style have none
    missing = [name for name in needs if cfg.get(name) is None]
    if missing:
        raise UsageError(
            f'{purpose} needs {", ".join(missing)} in the config, got none '
            f'in {path}'
        )
    if codebase is not None and importlib.util.find_spec(codebase) is None:
        raise UsageError(
            f'{path} is a config of {codebase}, which is not installed; '
            '`python -m mmattn` shows how to install it'
        )
    return cfg


def load_config(path: str | Path) -> Config:
    """Evaluate a config file.

    Raises:
        FileNotFoundError: If there is no such file.
        UsageError: If it includes itself or does not evaluate.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no config file {path}')
    try:
        _check_bases(Path(path).resolve(), ())
        cfg = Config.fromfile(path)
    except UsageError:
        raise
    # A config is code: it raises what it likes, and may exit.
    except (Exception, SystemExit) as error:
        raise UsageError(
            f'cannot read the config {path}: {type(error).__name__}: {error}'
        ) from error
    _check_types(cfg)
    return cfg


def codebase_of(cfg: Config) -> str | None:
    """The codebase that a config is written for, or None.

    It is the ``default_scope``; a config of the new style needs none, since
    the class of its model tells.
    """
    name = cfg.get('default_scope')
    if not name:
        kind = (cfg.get('model') or {}).get('type', '')
        kind = kind.__module__ if isinstance(kind, type) else str(kind)
        name = kind.partition('.')[0]
    return name if name in CODEBASES else None


def type_name(kind: Any) -> str:
    """The name of a ``type``: a string with or without scope, or a class."""
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]


def replace_sync_norms(node: Any) -> int:
    """Replace SyncBN by BN everywhere in a nested config.

    Args:
        node: Dicts, lists and tuples in any nesting, changed in place.

    Returns:
        How many layer configs were changed.
    """
    replaced = 0
    if isinstance(node, dict):
        if type_name(node.get('type')) in SYNC_NORMS:
            node['type'] = 'BN'
            replaced += 1
        children = list(node.values())
    else:
        children = node if isinstance(node, (list, tuple)) else []
    return replaced + sum(replace_sync_norms(child) for child in children)


def _check_types(cfg: Config) -> None:
    for name, kind in _TYPES.items():
        if not isinstance(cfg.get(name), (kind, NoneType)):
            raise UsageError(
                f'{name} of the config must be a {kind.__name__}, got '
                f'{cfg[name]!r} in {cfg.filename}'
            )


def _check_bases(path: Path, above: tuple[Path, ...]) -> None:
    # mmengine would read a config that includes itself until Python stops it.
    if path in above:
        chain = ' -> '.join(str(x) for x in (*above, path))
        raise UsageError(f'the config includes itself: {chain}')
    for base in _bases(path):
        _check_bases(base, (*above, path))


def _bases(path: Path) -> Iterator[Path]:
    """The local files that a config inherits from."""
    if path.suffix != '.py' or not path.is_file():
        return
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and node.level:  # new style
            folder = path.parents[node.level - 1]
            yield (folder / f'{(node.module or "").replace(".", "/")}.py')
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == '_base_'
            for target in node.targets
        ):
            for item in ast.walk(node.value):
                if isinstance(item, ast.Constant) and _is_local(item.value):
                    yield (path.parent / item.value).resolve()


def _is_local(name: Any) -> bool:
    return isinstance(name, str) and '::' not in name


def _config_of(name: str, purpose: str) -> str:
    try:
        return str(find_model(name).config)
    except ValueError as error:
        raise UsageError(
            f'{purpose} needs a config file, got {name!r}, which is neither '
            f'a file nor the name of a model{_suggest(name)}'
        ) from error


def _suggest(path: str) -> str:
    # Most mistyped names are nearly right.
    name = os.path.basename(path)
    known = {file.name: file for file in Path('configs').glob('*/*.py')}
    close = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean {known[close[0]]}?' if close else ''
