"""Changes to a config: where, to which value, and why."""

from collections.abc import Sequence
from typing import Any, NamedTuple

Path = tuple[str | int, ...]


class Edit(NamedTuple):
    """A new value for one entry of a config."""

    path: Path
    """Keys and list indices from the root of the config."""
    value: Any
    why: str = ''
    """Comment above the entry; shared by following edits without one."""


def apply_edits(config: dict, edits: Sequence[Edit]) -> dict:
    """Return a plain copy of a config with the edits applied."""
    config = plain(config)
    for edit in edits:
        node = config
        for key in edit.path[:-1]:
            if isinstance(node, dict) and not isinstance(
                node.get(key), (dict, list, tuple)
            ):
                node[key] = {}
            node = node[key]
        node[edit.path[-1]] = plain(edit.value)
    return config


def plain(value: Any) -> Any:
    """Copy into plain dicts, without mmengine's ``_scope_`` entries."""
    if isinstance(value, dict):
        return {
            key: plain(item)
            for key, item in dict.items(value)
            if key != '_scope_'
        }
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value


def get_at(config: Any, path: Path, default: Any = None) -> Any:
    """Return the entry at a path, or the default if there is none."""
    for key in path:
        try:
            config = config[key]
        except (KeyError, IndexError, TypeError):
            return default
    return config
