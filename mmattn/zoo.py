"""Models by name: those shipped with mmattn and those in local zoos.

A zoo is a folder with a ``model-index.yml`` in MIM's format; paths in its
metafiles are relative to the folder. ``MMATTN_ZOO`` names one or several,
separated as in ``PATH``. The default is ``~/.cache/mmattn/zoo``.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SCHEME = 'mmattn://'  # 'mmattn://NAME' stands for the weights of a model
_PACKAGE_INDEX = Path(__file__).parent / '.mim' / 'model-index.yml'
# torch.hub and OpenMMLab's zoos name files NAME-1a2b3c4d.pth. A date, which
# looks the same, says nothing about the content.
_HASH = re.compile(r'-(?!(?:19|20)\d\d[01]\d[0-3]\d)([0-9a-f]{8})\.\w+$')
_MAX_DEPTH = 50


class ZooModel(NamedTuple):
    """One model of a metafile, with paths that can be opened."""

    name: str
    config: Path
    weights: str | None  # a path or an http(s) address
    tasks: tuple[str, ...]


def zoo_folders() -> list[Path]:
    """Folders of local zoos, which may not exist; the first is the default."""
    paths = os.environ.get('MMATTN_ZOO', '').split(os.pathsep)
    folders = [Path(path).expanduser() for path in paths if path]
    return folders or [Path('~/.cache/mmattn/zoo').expanduser()]


def index_files() -> list[Path]:
    """The ``model-index.yml`` of the package and those of local zoos."""
    local = [folder / 'model-index.yml' for folder in zoo_folders()]
    return [path for path in (_PACKAGE_INDEX, *local) if path.is_file()]


def read_index(index: Path) -> list[ZooModel]:
    """List the models of a ``model-index.yml``.

    Raises:
        OSError, ValueError: If it or a metafile that it imports cannot be
            read.
    """
    models = []
    for name in _read_list(index, 'Import', str):
        metafile = index.parent / name
        try:
            models += [
                _read_entry(entry, index.parent)
                for entry in _read_list(metafile, 'Models', dict)
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'{metafile} is not a valid metafile ({type(error).__name__}: '
                f'{error}): each model needs Name and Config, each result '
                'needs Task'
            ) from error
    return models


def read_yaml(path: Path) -> dict:
    """Read a metafile or an index of metafiles.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not valid YAML.
    """
    import yaml

    # The loader written in C is ten times as fast, but not always built.
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    try:
        text, depth = path.read_text(encoding='utf-8'), 0
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:  # the loader would overflow the stack
                raise ValueError('it is too deeply nested')
        return yaml.load(text, loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f'{path} is not valid YAML: {error}') from error


def find_model(name: str) -> ZooModel:
    """Return the model of this name, which is case-insensitive.

    Raises:
        ValueError: If no zoo has it (the message lists similar names), or its
            config does not match the digest in its name.
    """
    names = []
    for model in _all_models():
        if model.name.lower() == name.lower():
            check_digest(model.config)
            return model
        names.append(model.name)
    close = difflib.get_close_matches(name, names, n=3)
    hint = f'did you mean {" or ".join(close)}?' if close else ''
    raise ValueError(
        f'{name!r} is not one of the {len(names)} models of mmattn; '
        f'{hint or "mmattn.zoo.list_models() lists them"}'
    )


def list_models() -> list[str]:
    """Names of all models, those of the package first."""
    return [model.name for model in _all_models()]


def codebase_models(package: Path) -> set[str]:
    """Names, in lower case, of the models that a codebase ships.

    Args:
        package: Folder of the installed codebase.
    """
    index = package / '.mim' / 'model-index.yml'
    names = set()
    for path in read_yaml(index)['Import']:
        # Parsing hundreds of whole metafiles would take many seconds.
        text = (index.parent / path).read_text()
        names |= set(re.findall(r'^ *-? *Name: *(\S+)', text, re.MULTILINE))
    return {name.strip('\'"').lower() for name in names}


def find_weights(name: str) -> str:
    """Return the path or address of a model's weights.

    Args:
        name: Name of the model, with or without ``mmattn://``.

    Raises:
        ValueError: If the model does not exist or has no weights.
    """
    model = find_model(name.removeprefix(SCHEME))
    if model.weights is None:
        raise ValueError(
            f'{model.name} has no published weights; give a checkpoint, or '
            'publish one with `python tools/publish_model.py`'
        )
    return model.weights


def check_digest(path: str | os.PathLike, name: str | None = None) -> None:
    """Compare a file with the digest in its name.

    Args:
        path: A file.
        name: Name that it was published under. Defaults to its own name. The
            content of ``smt-tiny-1a2b3c4d.pth`` must have a sha256 that
            starts with ``1a2b3c4d``.

    Raises:
        ValueError: If they differ.
    """
    expected = _HASH.search(name or Path(path).name)
    if expected is None:
        return
    found = file_digest(path) if Path(path).is_file() else 'no such file'
    if found != expected[1]:
        raise ValueError(
            f'checksum mismatch for {path}: expected {expected[1]} (from its '
            f'name), got {found}; download it again, or rename it if you '
            'changed it yourself'
        )


def file_digest(path: str | os.PathLike) -> str:
    """The first 8 digits of a file's sha256."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:8]


def _all_models() -> Iterator[ZooModel]:
    for index in index_files():
        yield from read_index(index)


def _read_list(path: Path, name: str, kind: type) -> list:
    content = read_yaml(path)
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(item, kind) for item in found
    ):
        raise ValueError(f'{path} has no valid list {name!r}')
    return found


def _read_entry(entry: dict, folder: Path) -> ZooModel:
    weights = entry.get('Weights')
    if weights is not None and '://' not in weights:
        weights = str(folder / weights)
    tasks = tuple(result['Task'] for result in entry.get('Results') or ())
    name = entry['Name'] + ''  # a string
    return ZooModel(name, folder / entry['Config'], weights, tasks)
