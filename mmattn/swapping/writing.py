"""Write a new config: its base and the edits, with comments."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from yapf.yapflib.yapf_api import FormatCode

from .edits import Edit, apply_edits, get_at
from .source import Source, shorten_types
from .unsupported import SwapError

_WIDTH = 79
_IMPORT = """from mmengine.config import read_base

with read_base():
    from {} import *
"""


def write_config(
    source: Source, edits: Sequence[Edit], out: Path, head: str, force: bool
) -> None:
    """Write a config and check that it reads back as planned.

    Args:
        source: The config that it inherits from.
        edits: The changes.
        out: The new file.
        head: Comment at its top.
        force: Whether to overwrite an existing file.

    Raises:
        SwapError: If the file exists (without ``force``), if it is the
            source, or if it does not read back as planned.
    """
    if out.exists() and out.samefile(source.path):
        raise SwapError(
            f'{out} is the source, from which the new config inherits; give '
            'another file with --out'
        )
    if out.exists() and not force:
        raise SwapError(
            f'{out} exists; overwrite it with --force or give another file '
            'with --out'
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since `_base_` may be a relative path.
    draft = out.with_name(f'.{out.stem}-{os.getpid()}.py')
    try:
        text = render_config(source, edits, out, head)
        draft.write_text(text, encoding='utf-8')
        config = Config.fromfile(draft).to_dict()
        config = shorten_types(config, source.codebase)
        wanted = apply_edits(source.config, edits)
        wrong = [key for key in wanted if config.get(key) != wanted[key]]
        if wrong:
            raise SwapError(
                f'the new config of {source.name} would not read back as '
                f'planned: {", ".join(wrong)} differ; please report this'
            )
        os.replace(draft, out)
    finally:
        draft.unlink(missing_ok=True)


def render_config(
    source: Source, edits: Sequence[Edit], out: Path, head: str
) -> str:
    """Render a config that inherits from its source and makes the edits."""
    is_new_style = source.is_new_style
    lists: dict[tuple, list[Edit]] = {}
    tree: dict = {}
    for edit in edits:
        depth = next(
            (i for i, key in enumerate(edit.path) if isinstance(key, int)), 0
        )
        if depth == 0:
            _put(tree, edit)
        elif edit.path[:depth] not in lists and not is_new_style:
            _put(tree, Edit(edit.path[:depth], _Name(edit.path[depth - 1])))
        if depth:
            lists.setdefault(edit.path[:depth], []).append(edit)
    if is_new_style:
        blocks = [head, _IMPORT.format(source.module_for(out))]
    else:
        blocks = [head, f'_base_ = {source.base_for(out)}\n']
    for path, items in lists.items():
        blocks.append(_render_list(path, items, is_new_style))
    for key, node in tree.items():
        value = render_value(node, source.config, (key,))
        comment = _comment(node.why, 0) if isinstance(node, Edit) else ''
        text = f'{key} = {value}\n'
        if is_new_style and isinstance(node, dict) and key in source.config:
            # Assignments replace, since there is no merging with a base.
            text = f'{key}.merge({value})\n'
        blocks.append(comment + text)
    return FormatCode('\n'.join(blocks), style_config='facebook')[0]


class _Name(str):
    """A variable of the config, rendered without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _put(tree: dict, edit: Edit) -> None:
    for key in edit.path[:-1]:
        tree = tree.setdefault(key, {})
    tree[edit.path[-1]] = edit


def _render_list(
    path: tuple, edits: Sequence[Edit], is_new_style: bool
) -> str:
    """Assign entries of a list, which configs only inherit as a whole."""
    name, text = '.'.join(path), ''
    if not is_new_style:
        name, text = path[-1], f'{path[-1]} = _base_.{name}\n'
    why = ''
    for edit in edits:
        if edit.why and edit.why != why:
            why = edit.why
            text += _comment(why, 0)
        place = ''.join(
            f'[{key!r}]' if isinstance(key, int) else f'.{key}'
            for key in edit.path[len(path) :]
        )
        text += f'{name}{place} = {render_value(edit.value)}\n'
    return text


def render_value(node: Any, config: Any = None, path: tuple = ()) -> str:
    """Render plain values, and dicts that hold edits, as Python code.

    Args:
        node: Dicts, lists, tuples, edits and values with a ``repr``.
        config: The source config; edits replace its dicts. Defaults to None.
        path: Place of the node in it. Defaults to ().
    """
    if isinstance(node, Edit):
        node = node.value
        if isinstance(node, dict) and path[-1] in (
            get_at(config, path[:-1]) or ()
        ):
            node = {'_delete_': True, **node}
    if isinstance(node, (list, tuple)):
        text = ', '.join(map(render_value, node))
        if isinstance(node, list):
            return f'[{text}]'
        return f'({text},)' if len(node) == 1 else f'({text})'
    if not isinstance(node, dict):
        return repr(node)
    is_named = all(isinstance(k, str) and k.isidentifier() for k in node)
    text, why = '', ''
    for key, child in node.items():
        if isinstance(child, Edit):
            if child.why != why:
                text += '\n' + _comment(child.why, 4 * len(path))
            why = child.why
        value = render_value(child, config, (*path, key))
        text += f'{key}={value},' if is_named else f'{key!r}: {value},'
    text = text.removesuffix(',')
    return f'dict({text})' if is_named else f'{{{text}}}'


def _comment(text: str, indent: int) -> str:
    """A comment in lines of 79 columns at an indentation."""
    lines = textwrap.wrap(text, _WIDTH - indent - 2)
    return ''.join(f'# {line}\n' for line in lines)
