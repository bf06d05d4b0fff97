"""Find and read the config whose backbone is to be replaced."""

import difflib
import importlib.util
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config

from mmattn.config import codebase_of, load_config, nested_dicts
from mmattn.stack import CODEBASES

from .edits import plain
from .unsupported import SwapError

# Folder of the configs in an installed codebase.
_SHIPPED = '.mim/configs'
_PREFIXES = ', '.join(f'{codebase}::' for codebase in CODEBASES)


class Source(NamedTuple):
    """A config, its place and its codebase."""

    name: str
    """``codebase::path`` if a codebase ships it, otherwise its path."""
    path: Path
    codebase: str
    config: dict
    """All of it, bases merged, as plain dicts and lists."""
    is_new_style: bool = False
    """Whether it is a pure Python config (``with read_base():``)."""

    def base_for(self, out: Path) -> str:
        """The ``_base_`` expression of a config at ``out``."""
        if '::' not in self.name:
            return repr(_relative_path(self.path, out).as_posix())
        codebase, relative = self.name.split('::')
        if codebase == 'mmseg':
            # mmengine does not find onedl-mmsegmentation by `mmseg::`.
            folder = f"__import__('mmseg').__path__[0] + '/{_SHIPPED}/'"
            return f'({folder}\n          {relative!r})'
        if re.match(r'\w*/\w*', relative) is None:
            # mmengine only accepts \w before the first slash.
            relative = f'_base_/../{relative}'
        return repr(f'{codebase}::{relative}')

    def module_for(self, out: Path) -> str:
        """The module that a new-style config at ``out`` imports.

        Raises:
            SwapError: If the path cannot be written as a module name.
        """
        path = self.path.resolve()
        for codebase in CODEBASES:
            root = _package_root(codebase)
            if root is not None and path.is_relative_to(root):
                parts = (codebase, *path.relative_to(root).parts)
                break
        else:
            parts = _relative_path(self.path, out).parts
        names = [part.removesuffix('.py') for part in parts if part != '..']
        if not all(name.isidentifier() for name in names):
            raise SwapError(
                f'a new-style config cannot import {self.path}, since its '
                'name or a folder is not a Python identifier; rename it, or '
                'write the new config next to it'
            )
        dots = '' if parts[0] in CODEBASES else '.' * (parts.count('..') + 1)
        return dots + '.'.join(names)


def _relative_path(path: Path, out: Path) -> Path:
    return Path(os.path.relpath(path.resolve(), out.resolve().parent))


def read_source(text: str) -> Source:
    """Read a config.

    Args:
        text: The path of a file, or ``codebase::path`` for a config that an
            installed codebase ships.

    Raises:
        UsageError: If there is no such config, if it cannot be read, or if it
            is for none of the three codebases.
    """
    codebase, separator, relative = text.partition('::')
    path = Path(text)
    if separator:
        path = config_root(codebase) / relative
    if not path.is_file():
        raise SwapError(
            f'no config {text!r}{_suggest(path)}; give a file or a config '
            f'that an installed codebase ships ({_PREFIXES})'
        )
    cfg = load_config(path)
    is_new_style = Config._is_lazy_import(str(path))
    if not separator:
        text, codebase = _shipped_name(path) or (str(path), '')
    if cfg.get('default_scope') or not codebase:
        codebase = codebase_of(cfg)
    if codebase is None:
        raise SwapError(
            f'{text} has default_scope {cfg.get("default_scope")!r}; only '
            f'configs of {", ".join(CODEBASES)} can be swapped'
        )
    config = shorten_types(cfg.to_dict(), codebase)
    return Source(text, path, codebase, config, is_new_style)


def shorten_types(config: dict, codebase: str) -> dict:
    """Copy a config with registered names for class paths (new style).

    ``mmdet.models.detectors.FCOS`` becomes ``FCOS`` in a config of mmdet and
    ``mmdet.FCOS`` elsewhere.
    """
    config = plain(config)
    for _, node in nested_dicts(config):
        for key in ('type', 'constructor'):
            kind = node.get(key)
            if not isinstance(kind, str) or kind.count('.') < 2:
                continue
            root, _, name = kind.partition('.')
            name = name.rpartition('.')[2]
            if root in (codebase, 'mmengine', 'mmcv') or hasattr(
                torch.optim, name
            ):
                node[key] = name
            elif root in (*CODEBASES, 'mmattn'):
                node[key] = f'{root}.{name}'
    return config


def config_root(codebase: str) -> Path:
    """Folder of the configs that an installed codebase ships.

    Raises:
        SwapError: If the codebase or its configs are not installed.
    """
    package = _package_root(codebase) if codebase in CODEBASES else None
    if package is None or not (package / _SHIPPED).is_dir():
        raise SwapError(
            f'{codebase}:: is unknown or not installed with its configs; use '
            f'one of {_PREFIXES}, or the path of a config; `python -m mmattn` '
            'shows what is installed'
        )
    return package / _SHIPPED


def _package_root(codebase: str) -> Path | None:
    spec = importlib.util.find_spec(codebase)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent


def _shipped_name(path: Path) -> tuple[str, str] | None:
    for codebase in CODEBASES:
        with suppress(SwapError, ValueError):  # not installed, or elsewhere
            root = config_root(codebase).resolve()
            relative = path.resolve().relative_to(root)
            return f'{codebase}::{relative.as_posix()}', codebase
    return None


def _suggest(path: Path) -> str:
    if not path.parent.is_dir():
        return ''
    near = difflib.get_close_matches(
        path.name, [p.name for p in path.parent.glob('*.py')], n=1, cutoff=0.5
    )
    return f', did you mean {near[0]}?' if near else ''
