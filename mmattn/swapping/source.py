"""Find and read the config whose backbone is to be replaced."""

import difflib
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmattn.errors import UsageError
from mmattn.stack import CODEBASES

from .edits import plain


class Source(NamedTuple):
    """A config, where it lies and which codebase it is for."""

    name: str
    """``host::path`` for what a codebase ships, the path otherwise."""
    path: Path
    host: str
    config: dict
    """All of it, bases merged, as plain dicts and lists."""

    def base_for(self, out: Path) -> str:
        """What a config at ``out`` writes behind ``_base_ =``."""
        if '::' not in self.name:
            return Path(
                os.path.relpath(self.path.resolve(), out.resolve().parent)
            ).as_posix()
        host, relative = self.name.split('::')
        if re.match(r'\w*/\w*', relative) is None:
            # mmengine takes letters only before the first slash.
            relative = f'_base_/../{relative}'
        return f'{host}::{relative}'


def read_source(text: str) -> Source:
    """Read a config by its path or by ``mmdet::``, ``mmseg::`` and so on.

    Args:
        text: The path of a file, or ``host::path`` below the configs that an
            installed codebase carries.

    Returns:
        The config and where it was found.

    Raises:
        UsageError: If there is no such config, if it does not evaluate, or
            if it is for none of the three codebases.
    """
    host, separator, relative = text.partition('::')
    path = Path(text)
    if separator:
        path = config_root(host) / relative
    if not path.is_file():
        raise UsageError(
            f'SOURCE expects a config file or one of {_prefixes()} with a '
            f'config that it ships, got {text!r}{_suggest(path)}'
        )
    try:
        config = plain(Config.fromfile(path).to_dict())
    except Exception as error:  # a config is code: it raises what it likes
        raise UsageError(
            f'cannot read the config {text}: {type(error).__name__}: {error}'
        ) from error
    if not separator:
        text, host = _shipped_name(path) or (str(path), '')
    host = config.get('default_scope') or host
    if host not in CODEBASES:
        raise UsageError(
            f'SOURCE expects a config of {", ".join(CODEBASES)} (its '
            f'default_scope), got {host!r} in {text}'
        )
    return Source(text, path, host, config)


def config_root(host: str) -> Path:
    """Folder of the configs that an installed codebase carries.

    Raises:
        UsageError: If it is no codebase that is installed, or if it was
            installed without its configs.
    """
    root = _config_root(host) if host in CODEBASES else None
    if root is None:
        raise UsageError(
            f'SOURCE expects one of {_prefixes()}, got {host}::, which is '
            'not installed with its configs; `python -m mmattn` says what is '
            'installed'
        )
    return root


def list_shipped(host: str) -> list[str]:
    """Names ``host::path`` of all configs that a codebase ships.

    What others inherit from (``_base_``) is no config of its own.
    """
    root = config_root(host)
    files = sorted(path.relative_to(root) for path in root.rglob('*.py'))
    return [
        f'{host}::{path.as_posix()}'
        for path in files
        if path.parts[0] != '_base_'
    ]


def _config_root(host: str) -> Path | None:
    spec = importlib.util.find_spec(host)
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent / '.mim' / 'configs'
    return root if root.is_dir() else None


def _prefixes() -> str:
    return ', '.join(f'{host}::' for host in CODEBASES)


def _shipped_name(path: Path) -> tuple[str, str] | None:
    for host in CODEBASES:
        root = _config_root(host)
        if root is not None and path.resolve().is_relative_to(root.resolve()):
            relative = path.resolve().relative_to(root.resolve())
            return f'{host}::{relative.as_posix()}', host
    return None


def _suggest(path: Path) -> str:
    if not path.parent.is_dir():
        return ''
    near = difflib.get_close_matches(
        path.name, [p.name for p in path.parent.glob('*.py')], n=1, cutoff=0.5
    )
    return f'; did you mean {near[0]}?' if near else ''
