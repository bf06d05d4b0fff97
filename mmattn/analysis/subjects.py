"""What can be measured, by the name that a command line gives it."""

import ast
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmattn import backbones
from mmattn.ops import list_implementations
from mmattn.stack import CODEBASES
from mmattn.swapping import list_families

from .builders import (
    Build,
    any_size,
    check_arguments,
    choose_outputs,
    find_host_config,
    from_config,
    from_file,
    from_registry,
    from_timm,
)

# What a subject computes: its last map, or a map of each of its stages.
OUTPUTS = ('last', 'all')


class Subject(NamedTuple):
    """Something to measure.

    Attributes:
        name: As the command line has it.
        build: Builds it for a size.
        impl: Implementation that all operations of ours which have it take;
            None for those that they choose.
    """

    name: str
    build: Build
    impl: str | None = None


def read_subjects(texts: Sequence[str], outputs: str) -> list[Subject]:
    """Find what names stand for; one given twice gets two names.

    See :func:`read_subject`. A model beside itself shows the noise.
    """
    found = [read_subject(text, outputs) for text in texts]
    return [
        subject._replace(name=f'{subject.name} #{1 + texts[:i].count(text)}')
        if text in texts[:i]
        else subject
        for i, (text, subject) in enumerate(zip(texts, found))
    ]


def read_subject(text: str, outputs: str = 'last', **defaults: Any) -> Subject:
    """Find what a name stands for; nothing is built or downloaded.

    A name is one of

    - an arch of ours: ``boat-swin-tiny``, ``swin-tiny``, ...;
    - a registered class: ``mmattn.BOATSwin``, ``mmpretrain.ConvNeXt``;
    - a config, whose backbone is meant: ``path/to/config.py``,
      ``mmdet::folder/config.py``, ``mmpretrain:config-without-folder``;
    - a model of timm without its head: ``timm:resnet50``;
    - a class or function in a file: ``path/to/file.py:Class``.

    Keyword arguments may follow: ``boat-swin-tiny(window_size=14)``. The
    argument ``impl`` of a backbone or config is an implementation for all
    operations of ours that have it: ``boat-swin-tiny(impl='reference')``.

    Args:
        text: The name.
        outputs: ``'last'`` for the last map alone, ``'all'`` for one of each
            stage. Means nothing to a class in a file, which computes what
            its own forward pass computes.
        **defaults: Arguments, where the name does not bring them.

    Raises:
        ValueError: If there is no such name, or if the arguments cannot be
            read or are unknown to it.
        FileNotFoundError: If there is no such file.
        ImportError: If timm or a codebase is not installed.
    """
    name, options = _split_arguments(text)
    options = defaults | options
    is_foreign = name.startswith('timm:') or '.py:' in name
    impl = None if is_foreign else options.pop('impl', None)
    known = {row.name for row in list_implementations()}
    if impl is not None and impl not in known:
        raise ValueError(f'impl is expected in {sorted(known)}, got {impl!r}')
    return Subject(text, _find_build(name, options, outputs), impl)


def _find_build(name: str, options: dict[str, Any], outputs: str) -> Build:
    in_file = re.fullmatch(r'(.+\.py):(\w+)', name)
    of_host = re.fullmatch(rf'({"|".join(CODEBASES)})::?([^:]+)', name)
    if name.startswith('timm:'):
        return from_timm(name.removeprefix('timm:'), options, outputs)
    if in_file:
        return from_file(Path(in_file[1]), in_file[2], options)
    if of_host or name.endswith('.py'):
        path = find_host_config(*of_host.groups()) if of_host else name
        return from_config(str(path), options, outputs)
    if name in list_families():
        kind, arch = list_families()[name]
        backbone = getattr(backbones, kind)
        check_arguments(backbone, options)
        options = choose_outputs(backbone, options, outputs)
        return any_size(name, backbone, dict(arch=arch) | options)
    if re.fullmatch(r'\w+\.\w+', name):
        return from_registry(name, options, outputs)
    raise ValueError(_unknown(name))


def _split_arguments(text: str) -> tuple[str, dict[str, Any]]:
    name, bracket, rest = text.partition('(')
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f'f({rest}', mode='eval').body
        if not isinstance(call, ast.Call) or call.args:
            raise SyntaxError
        values = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
        if None in values:  # of **
            raise SyntaxError
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            'arguments are expected as NAME(key=value, ...) with plain '
            f"values, got {text}; such as 'boat-swin-tiny(window_size=14)'"
        ) from error
    return name, values


def _unknown(name: str) -> str:
    names = list(list_families())
    close = difflib.get_close_matches(name, names, n=3) or names
    return (
        'a model is expected: an arch of ours, scope.Class, config.py, '
        'mmdet::path/config.py, mmpretrain:config, timm:name or '
        f'file.py:Class, got {name!r}; known archs are {", ".join(close)}'
    )
