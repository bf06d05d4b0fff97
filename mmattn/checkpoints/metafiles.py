"""The metafile of a zoo: entries that publishing adds or updates."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mmattn.zoo import host_names, index_files, read_index, read_yaml


def add_entry(folder: Path, entry: dict) -> None:
    """Add a model to the metafile of a zoo, or update it there.

    Args:
        folder: The zoo; its ``model-index.yml`` is made where it is missing.
        entry: As in ``Models`` of a metafile.
    """
    with _alone_in(folder):
        _add_entry(folder, entry)


def check_replaceable(name: str, folder: Path) -> None:
    """Refuse to replace what is no model of a zoo.

    Args:
        name: Of the folder to replace.
        folder: The zoo.

    Raises:
        FileExistsError: If the zoo's index does not list it as a model.
    """
    index = folder / 'model-index.yml'
    models = read_index(index) if index.is_file() else []
    if name not in [model.name for model in models]:
        raise FileExistsError(
            f'publishing expects to replace a model, got {folder / name}, '
            f'which is no model that {index} lists; nothing was touched, '
            'choose another name or zoo, or remove it yourself'
        )


def check_new_name(name: str, folder: Path, hosts: list[Path]) -> None:
    """Refuse the name of a model to publish that means something already.

    Args:
        name: Of the model.
        folder: The zoo that it goes to, where it may be updated.
        hosts: Folders of the installed codebases.

    Raises:
        ValueError: If it is not made of small letters, digits and ``._-``,
            or is that of another model.
    """
    if not re.fullmatch(r'[a-z0-9][a-z0-9._-]*', name):
        raise ValueError(
            'mmattn expects a name of small letters, digits and ._- for a '
            f'model, got {name!r}'
        )
    taken = {}
    for index in index_files():
        if index.parent.resolve() != folder.resolve():
            models = read_index(index)
            taken |= {model.name.lower(): index for model in models}
    for host in hosts:
        taken |= dict.fromkeys(host_names(host), host)
    if name in taken:
        raise ValueError(
            f'mmattn expects a new name for a model, got {name!r}, which is '
            f'one of {taken[name]}; choose another'
        )


def _add_entry(folder: Path, entry: dict) -> None:
    metafile = folder / 'metafile.yml'
    content = read_yaml(metafile) if metafile.exists() else {}
    collections = content.setdefault('Collections', [])
    if entry['In Collection'] not in [c['Name'] for c in collections]:
        collections.append({'Name': entry['In Collection']})
    models = content.setdefault('Models', [])
    names = [model['Name'] for model in models]
    if entry['Name'] in names:
        models[names.index(entry['Name'])] = entry
    else:
        models.append(entry)
    _write_yaml(metafile, content)
    index = folder / 'model-index.yml'
    content = read_yaml(index) if index.exists() else {}
    imported = content.setdefault('Import', [])
    if metafile.name not in imported:  # an index that somebody wrote
        imported.append(metafile.name)
        _write_yaml(index, content)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process changes what lies in a folder."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)  # gives the lock back


def _write_yaml(path: Path, content: dict) -> None:
    """Write a metafile or an index of metafiles, at once and whole."""
    partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    partial.write_text(text, encoding='utf-8')
    partial.replace(path)
