"""The metafile of a zoo: entries that publishing adds or updates."""

import os
import re
from pathlib import Path

import yaml

from mmattn.zoo import host_names, index_files, read_index, read_yaml


def add_entry(folder: Path, entry: dict) -> None:
    """Add a model to the metafile of a zoo, or update it there.

    Args:
        folder: The zoo; its ``model-index.yml`` is made where it is missing.
        entry: As in ``Models`` of a metafile.
    """
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
    if not index.exists():
        _write_yaml(index, {'Import': ['metafile.yml']})


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
            taken |= {model.name: index for model in read_index(index)}
    for host in hosts:
        taken |= dict.fromkeys(host_names(host), host)
    if name in taken:
        raise ValueError(
            f'mmattn expects a new name for a model, got {name!r}, which is '
            f'one of {taken[name]}; choose another'
        )


def _write_yaml(path: Path, content: dict) -> None:
    """Write a metafile or an index of metafiles, at once and whole."""
    partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    partial.write_text(text, encoding='utf-8')
    partial.replace(path)
