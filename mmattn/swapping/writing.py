"""Write a new config: its base and the edits, with comments."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .edits import Edit, apply_edits, get_at, plain
from .source import Source, shorten_types
from .unsupported import SwapError

_WIDTH = 79
_IMPORT = """from mmengine.config import read_base

with read_base():
    from {} import *
"""
_STEP = 4


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
        check_text(draft, source, edits)
        os.replace(draft, out)
    finally:
        draft.unlink(missing_ok=True)


def check_text(path: Path, source: Source, edits: Sequence[Edit]) -> None:
    """Read a config and compare it with the source and its edits.

    Raises:
        SwapError: If they are not the same.
    """
    config = plain(Config.fromfile(path).to_dict())
    config = shorten_types(config, source.codebase)
    wanted = apply_edits(source.config, edits)
    wrong = [key for key in wanted if config.get(key) != wanted[key]]
    if wrong:
        raise SwapError(
            f'the new config of {source.name} would not read back as '
            f'planned: {", ".join(wrong)} differ; please report this'
        )


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
        text = _render_entry(key, node, source.config, (key,), 0)
        if is_new_style and isinstance(node, dict) and key in source.config:
            # Assignments replace, since there is no merging with a base.
            value = text.removeprefix(f'{key} = ').rstrip()
            text = f'{key}.merge({value})\n'
        blocks.append(text)
    return '\n'.join(blocks)


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
            for key in edit.path[len(path) : -1]
        )
        text += _assign(f'{name}{place}', edit)
    return text


def _assign(target: str, edit: Edit) -> str:
    key = edit.path[-1]
    target += f'[{key}]' if isinstance(key, int) else f'.{key}'
    return f'{target} = {render_value(edit.value, 0, len(target) + 3)}\n'


def _render_entry(
    key: str, node: Any, config: Any, path: tuple, indent: int
) -> str:
    """Render a keyword of a dict or a variable of the config."""
    equals, comma = (' = ', '') if indent == 0 else ('=', ',')
    start = ' ' * indent + f'{key}{equals}'
    if isinstance(node, Edit):
        value = node.value
        if isinstance(value, dict) and key in get_at(config, path[:-1], ()):
            value = {'_delete_': True, **value}
        text = render_value(value, indent, len(start) + len(comma))
        return f'{_comment(node.why, indent)}{start}{text}{comma}\n'
    if not all(isinstance(k, str) and k.isidentifier() for k in node):
        return _render_braces(start, comma, node, config, path, indent)
    text = f'{start}dict(\n'
    why = ''
    for name, child in node.items():
        if isinstance(child, Edit):
            shown, why = (child.why if child.why != why else ''), child.why
            child = child._replace(why=shown)
        text += _render_entry(
            name, child, config, (*path, name), indent + _STEP
        )
    return f'{text}{" " * indent}){comma}\n'


def _render_braces(
    start: str, comma: str, node: dict, config: Any, path: tuple, indent: int
) -> str:
    """Render a dict whose keys are not all identifiers."""
    text = f'{start}{{\n'
    inner = ' ' * (indent + _STEP)
    why = ''
    for key, child in node.items():
        if child.why != why:
            why = child.why
            text += _comment(why, indent + _STEP)
        value = render_value(
            child.value, indent + _STEP, len(inner) + len(repr(key)) + 3
        )
        text += f'{inner}{key!r}: {value},\n'
    return f'{text}{" " * indent}}}{comma}\n'


def _comment(text: str, indent: int) -> str:
    if not text:
        return ''
    start = ' ' * indent + '# '
    return (
        '\n'.join(
            textwrap.wrap(
                text, _WIDTH, initial_indent=start, subsequent_indent=start
            )
        )
        + '\n'
    )


def render_value(value: Any, indent: int, used: int) -> str:
    """Render plain values as Python code, in lines of 79 columns.

    Args:
        value: Dicts, lists, tuples, strings, numbers and None.
        indent: Indentation of the current line.
        used: Columns of the current line that are taken.
    """
    line = _one_line(value)
    if used + len(line) <= _WIDTH or not isinstance(
        value, (dict, list, tuple)
    ):
        return line
    inner = ' ' * (indent + _STEP)
    if isinstance(value, dict):
        named = _is_named(value)
        ends = ('dict(', ')') if named else ('{', '}')
        items = []
        for key, item in value.items():
            start = f'{key}=' if named else f'{key!r}: '
            width = len(inner) + len(start) + 1
            items.append(start + render_value(item, indent + _STEP, width))
    else:
        ends = ('[', ']') if isinstance(value, list) else ('(', ')')
        items = [
            render_value(item, indent + _STEP, len(inner) + 1)
            for item in value
        ]
    body = ''.join(f'{inner}{item},\n' for item in items)
    return f'{ends[0]}\n{body}{" " * indent}{ends[1]}'


def _one_line(value: Any) -> str:
    if isinstance(value, dict):
        if _is_named(value):
            items = (f'{k}={_one_line(v)}' for k, v in value.items())
            return f'dict({", ".join(items)})'
        items = (f'{k!r}: {_one_line(v)}' for k, v in value.items())
        return f'{{{", ".join(items)}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_one_line, value))}]'
    if isinstance(value, tuple):
        end = ',' if len(value) == 1 else ''
        return f'({", ".join(map(_one_line, value))}{end})'
    return repr(value)


def _is_named(value: dict) -> bool:
    return all(isinstance(key, str) and key.isidentifier() for key in value)
