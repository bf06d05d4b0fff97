"""Models by name: those that mmattn ships and those of local zoos.

A zoo is a folder with a ``model-index.yml`` as MIM knows it; paths in its
metafiles are relative to the folder. ``MMATTN_ZOO`` names one or several
(parted as in ``PATH``); by default it is ``~/.cache/mmattn/zoo``.
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
# The way of torch.hub and of OpenMMLab's zoos: NAME-1a2b3c4d.pth. A date is
# written the same way; it is no promise about the content.
_HASH = re.compile(r'-(?!(?:19|20)\d\d[01]\d[0-3]\d)([0-9a-f]{8})\.\w+$')


class ZooModel(NamedTuple):
    """One entry of a metafile, with paths that can be opened."""

    name: str
    config: Path
    weights: str | None  # a path or an http(s) address
    tasks: tuple[str, ...]


def zoo_folders() -> list[Path]:
    """Folders of local zoos, there or not; the first is published into."""
    named = os.environ.get('MMATTN_ZOO', '').split(os.pathsep)
    folders = [Path(path).expanduser() for path in named if path]
    return folders or [Path('~/.cache/mmattn/zoo').expanduser()]


def index_files() -> list[Path]:
    """The ``model-index.yml`` of the package and those of local zoos."""
    local = [folder / 'model-index.yml' for folder in zoo_folders()]
    return [path for path in (_PACKAGE_INDEX, *local) if path.is_file()]


def read_index(index: Path) -> list[ZooModel]:
    """List the models of a ``model-index.yml``.

    Raises:
        OSError, ValueError: If it, or a metafile that it names, cannot be
            read.
    """
    models = []
    for name in _read_field(index, 'Import'):
        metafile = index.parent / name
        try:
            models += [
                _read_entry(entry, index.parent)
                for entry in _read_field(metafile, 'Models')
            ]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                'mmattn expects models with Name and Config, and results '
                f'with Task, got others in {metafile} '
                f'({type(error).__name__}: {error}); mend that file'
            ) from error
    return models


def read_yaml(path: Path) -> dict:
    """Read a metafile or an index of metafiles.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is no yaml.
    """
    import yaml

    # The one written in C is ten times as fast, and not always built.
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding='utf-8'), loader)
    except yaml.YAMLError as error:
        raise ValueError(
            f'mmattn expects yaml, got {path}: {error}; mend that file'
        ) from error


def find_model(name: str) -> ZooModel:
    """Return the model of a name, in any case of its letters.

    Raises:
        ValueError: If no zoo has it; the message names some that are alike.
    """
    names = []
    for model in _all_models():
        if model.name.lower() == name.lower():
            return model
        names.append(model.name)
    close = difflib.get_close_matches(name, names, n=3)
    hint = f'did you mean {" or ".join(close)}?' if close else ''
    raise ValueError(
        f'mmattn expects the name of one of its {len(names)} models, got '
        f'{name!r}; {hint or "mmattn.zoo.list_models() names them"}'
    )


def host_names(package: Path) -> set[str]:
    """Names, in small letters, of the models that a codebase ships.

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


def list_models() -> list[str]:
    """Names of all models, those of the package first."""
    return [model.name for model in _all_models()]


def find_weights(name: str) -> str:
    """Return the path or the address of a model's weights.

    Args:
        name: Of the model, with or without ``mmattn://``.

    Raises:
        ValueError: If there is no such model, or it has none yet.
    """
    model = find_model(name.removeprefix(SCHEME))
    if model.weights is None:
        raise ValueError(
            f'mmattn expects a model with published weights, got {model.name},'
            ' which has none yet; give a checkpoint of yours, or publish one '
            'with `python tools/publish_model.py`'
        )
    return model.weights


def check_digest(path: str | os.PathLike, name: str | None = None) -> None:
    """Refuse a file that is not what its name promises.

    Args:
        path: A file.
        name: The name it was published under, where it has another one here.
            A name such as ``smt-tiny-1a2b3c4d.pth`` says what the sha256 of
            the content begins with.

    Raises:
        ValueError: If it begins otherwise.
    """
    promised = _HASH.search(name or Path(path).name)
    if promised is None:
        return
    found = file_digest(path)
    if found != promised[1]:
        raise ValueError(
            f'mmattn expects a file whose sha256 begins with {promised[1]}, '
            f'as its name says, got {path}, whose begins with {found}: it was '
            'altered or damaged after it was published; get it again, or '
            'rename it if you changed it yourself'
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


def _read_field(path: Path, name: str) -> list:
    content = read_yaml(path)
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise ValueError(
            f'mmattn expects a list {name} in {path}, got none; mend that file'
        )
    return found


def _read_entry(entry: dict, folder: Path) -> ZooModel:
    weights = entry.get('Weights')
    if weights is not None and '://' not in weights:
        weights = str(folder / weights)
    tasks = tuple(result['Task'] for result in entry.get('Results') or ())
    return ZooModel(entry['Name'], folder / entry['Config'], weights, tasks)
