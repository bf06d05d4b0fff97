"""Add models to the metafile of a zoo."""

import fcntl
import os
import re
from pathlib import Path

import yaml

from mmattn.zoo import codebase_models, index_files, read_index, read_yaml


def add_entry(folder: Path, entry: dict) -> None:
    """Add a model to the metafile of a zoo, or update it.

    Args:
        folder: The zoo; its ``model-index.yml`` is created if missing.
        entry: A model as in ``Models`` of a metafile.
    """
    metafile, index = folder / 'metafile.yml', folder / 'model-index.yml'
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # against other processes
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
        content = read_yaml(index) if index.exists() else {}
        imported = content.setdefault('Import', [])
        if metafile.name not in imported:  # an index written by hand
            imported.append(metafile.name)
            _write_yaml(index, content)
    finally:
        os.close(lock)  # releases the lock


def check_replaceable(name: str, folder: Path) -> None:
    """Check that a folder to replace is a model of the zoo.

    Args:
        name: Name of the folder.
        folder: The zoo.

    Raises:
        FileExistsError: If the zoo's index does not list the name.
    """
    index = folder / 'model-index.yml'
    models = read_index(index) if index.is_file() else []
    if name not in [model.name for model in models]:
        raise FileExistsError(
            f'{folder / name} is not a model listed in {index}, so it was '
            'not replaced; choose another name or zoo, or remove it yourself'
        )


def check_new_name(name: str, folder: Path, codebases: list[Path]) -> None:
    """Check that no other zoo or codebase has a model of this name.

    Args:
        name: Name of the model to publish.
        folder: The zoo to publish into; it may have the name already.
        codebases: Folders of the installed codebases.

    Raises:
        ValueError: If the name is taken, or has other characters than
            lower-case letters, digits and ``._-``.
    """
    if not re.fullmatch(r'[a-z0-9][a-z0-9._-]*', name):
        raise ValueError(
            'the name of a model may contain lower-case letters, digits and '
            f'._-, got {name!r}'
        )
    taken = {}
    for index in index_files():
        if index.parent.resolve() != folder.resolve():
            models = read_index(index)
            taken |= {model.name.lower(): index for model in models}
    for package in codebases:
        taken |= dict.fromkeys(codebase_models(package), package)
    if name in taken:
        raise ValueError(
            f'the name {name!r} is already used in {taken[name]}; choose '
            'another'
        )


def _write_yaml(path: Path, content: dict) -> None:
    """Replace a metafile or an index of metafiles atomically."""
    partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    partial.write_text(text, encoding='utf-8')
    partial.replace(path)
