"""Read a config of mmdet, mmseg or mmpretrain."""

import copy
import difflib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmattn.errors import UsageError
from mmattn.stack import CODEBASES
from mmattn.zoo import find_model

SYNC_NORMS = ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')
_STRINGS = ('default_scope', 'work_dir', 'load_from')
_DICTS = (
    'model data_preprocessor optim_wrapper default_hooks env_cfg '
    'auto_scale_lr randomness train_dataloader val_dataloader '
    'test_dataloader train_cfg val_cfg test_cfg'
).split()


def read_config(
    path: str, options: dict | None, needs: tuple[str, ...], purpose: str
) -> Config:
    """Read a config file, apply overrides and check required fields.

    Args:
        path: The file, or the name of one of our models.
        options: Overrides, dotted key to value.
        needs: Required fields.
        purpose: ``'training'``, ``'testing'``, ..., for messages.

    Returns:
        The config, with ``filename`` and, for a config of the codebases,
        ``default_scope`` set.

    Raises:
        UsageError: If the file is missing or does not evaluate, if an
            override does not fit, if a field is missing, or if the codebase
            of the config is not installed.
    """
    if not os.path.isfile(path):
        try:
            path = str(find_model(path).config)
        except ValueError as error:
            names = {x.name: x for x in Path('configs').glob('*/*.py')}
            close = difflib.get_close_matches(Path(path).name, names, n=1)
            hint = f'; did you mean {names[close[0]]}?' if close else ''
            raise UsageError(
                f'{purpose} needs a config file, got {path!r}, which is not a '
                f'file; {error}{hint}'
            ) from error
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
            f'{purpose} needs {", ".join(missing)}, missing in {path}'
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
        with _no_cycles():
            cfg = Config.fromfile(path)
    except UsageError:
        raise
    # A config is code, which may raise anything or exit.
    except (Exception, SystemExit) as error:
        raise UsageError(
            f'cannot read the config {path}: {type(error).__name__}: {error}'
        ) from error
    _check_types(cfg)
    return cfg


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Stop mmengine at once at a config that includes itself."""
    above: list[str] = []

    def check(read: Callable) -> staticmethod:
        def checked(filename: str, *args: Any, **kwargs: Any) -> Any:
            above.append(os.path.realpath(filename))
            if above[-1] in above[:-1]:
                chain = ' -> '.join(above)
                raise UsageError(f'the config includes itself: {chain}')
            result = read(filename, *args, **kwargs)
            above.pop()
            return result

        return staticmethod(checked)

    names = ('_file2dict', '_parse_lazy_import')
    originals = {name: Config.__dict__[name] for name in names}
    try:
        for name in names:
            setattr(Config, name, check(getattr(Config, name)))
        yield
    finally:
        for name in names:
            setattr(Config, name, originals[name])


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config, in evaluation mode, with random weights."""
    model = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        built = MODELS.build(model)
    built.eval()  # some detectors' eval() returns None
    return built


def codebase_of(cfg: Config) -> str | None:
    """The codebase of a config, or None.

    It is the ``default_scope``, or the package of the model's class.
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


def nested_dicts(node: Any, name: str = '') -> Iterator[tuple[str, dict]]:
    """Yield the dicts in dicts, lists and tuples, with their dotted names.

    The names are of keys and indices, such as ``model.neck.0``. Outer dicts
    come first, and may be changed before the inner ones follow.
    """
    if isinstance(node, dict):
        yield name, node
    elif isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    else:
        return
    for key, child in node.items():
        inner = f'{name}.{key}' if name else str(key)
        yield from nested_dicts(child, inner)


def replace_sync_norms(node: Any) -> int:
    """Replace SyncBN by BN in a nested config, in place.

    Returns:
        How many layer configs were changed.
    """
    norms = [
        layer
        for _, layer in nested_dicts(node)
        if type_name(layer.get('type')) in SYNC_NORMS
    ]
    for norm in norms:
        norm['type'] = 'BN'
    return len(norms)


def _check_types(cfg: Config) -> None:
    for name in (*_DICTS, *_STRINGS):
        kind = dict if name in _DICTS else str
        if not isinstance(cfg.get(name), (kind, NoneType)):
            raise UsageError(
                f'{name} of the config must be a {kind.__name__}, got '
                f'{cfg[name]!r} in {cfg.filename}'
            )
