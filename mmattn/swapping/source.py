"""Find and read the config whose backbone is to be replaced."""

import difflib
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from mmattn.config import load_config
from mmattn.errors import UsageError
from mmattn.stack import CODEBASES

from .edits import plain
from .unsupported import SwapError

_PREFIXES = ', '.join(f'{codebase}::' for codebase in CODEBASES)


class Source(NamedTuple):
    """A config, its place and its codebase."""

    name: str
    """``codebase::path`` if a codebase ships it, otherwise its path."""
    path: Path
    codebase: str
    config: dict
    """All of it, bases merged, as plain dicts and lists."""

    def base_for(self, out: Path) -> str:
        """The ``_base_`` of a config at ``out``."""
        if '::' not in self.name:
            return Path(
                os.path.relpath(self.path.resolve(), out.resolve().parent)
            ).as_posix()
        codebase, relative = self.name.split('::')
        if re.match(r'\w*/\w*', relative) is None:
            # mmengine only accepts \w before the first slash.
            relative = f'_base_/../{relative}'
        return f'{codebase}::{relative}'


def read_source(text: str) -> Source:
    """Read a config.

    Args:
        text: The path of a file, or ``codebase::path`` for a config that an
            installed codebase ships.

    Raises:
        SwapError: If there is no such config, if it cannot be read, or if it
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
    try:
        config = plain(load_config(path).to_dict())
    except UsageError as error:
        raise SwapError(str(error)) from error
    if not separator:
        text, codebase = _shipped_name(path) or (str(path), '')
    codebase = config.get('default_scope') or codebase
    if codebase not in CODEBASES:
        raise SwapError(
            f'{text} has default_scope {codebase!r}; only configs of '
            f'{", ".join(CODEBASES)} can be swapped'
        )
    return Source(text, path, codebase, config)


def config_root(codebase: str) -> Path:
    """Folder of the configs that an installed codebase ships.

    Raises:
        SwapError: If the codebase or its configs are not installed.
    """
    root = _config_root(codebase) if codebase in CODEBASES else None
    if root is None:
        raise SwapError(
            f'{codebase}:: is not installed with its configs; run '
            f'`python -m mmattn` to see what is installed, and use one of '
            f'{_PREFIXES}'
        )
    return root


def list_shipped(codebase: str) -> list[str]:
    """Names of all configs that a codebase ships, except ``_base_``."""
    root = config_root(codebase)
    files = sorted(path.relative_to(root) for path in root.rglob('*.py'))
    return [
        f'{codebase}::{path.as_posix()}'
        for path in files
        if path.parts[0] != '_base_'
    ]


def _config_root(codebase: str) -> Path | None:
    spec = importlib.util.find_spec(codebase)
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent / '.mim' / 'configs'
    return root if root.is_dir() else None


def _shipped_name(path: Path) -> tuple[str, str] | None:
    for codebase in CODEBASES:
        root = _config_root(codebase)
        if root is not None and path.resolve().is_relative_to(root.resolve()):
            relative = path.resolve().relative_to(root.resolve())
            return f'{codebase}::{relative.as_posix()}', codebase
    return None


def _suggest(path: Path) -> str:
    if not path.parent.is_dir():
        return ''
    near = difflib.get_close_matches(
        path.name, [p.name for p in path.parent.glob('*.py')], n=1, cutoff=0.5
    )
    return f', did you mean {near[0]}?' if near else ''
