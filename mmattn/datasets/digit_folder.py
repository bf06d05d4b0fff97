"""Write digit scenes to a folder that mmdet, mmseg and mmpretrain can read.

::

    manifest.json                             parameters and a hash
    images/{training,validation}/*.png        scenes, RGB
    annotations/{training,validation}/*.png   class map: 0 background, d + 1
    annotations/instances_{training,validation}.json      COCO, RLE masks
    crops/{train,val}/<digit>/*.png           single digits, RGB

The folder is written under a temporary name and renamed, so it is always
complete.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmattn.datasets.digit_annotations import coco_annotations, semantic_map
from mmattn.datasets.digit_glyphs import (
    DigitPool,
    load_digit_pools,
    load_photos,
)
from mmattn.datasets.digit_scenes import (
    DigitSceneSpec,
    compose_crop,
    compose_scene,
)

MANIFEST = 'manifest.json'
# Increased whenever the same parameters give different files.
_GENERATOR = 'mmattn digit scenes 1'
_OWN_ENTRIES = {MANIFEST, 'images', 'annotations', 'crops'}
_SCENE_FOLDERS = ('training', 'validation')
_CROP_FOLDERS = ('train', 'val')


class DigitFolder(NamedTuple):
    """Result of :func:`make_digit_folder`.

    Attributes:
        root: Folder of the data set.
        is_new: False if the same data set already existed.
        moved: New path of an unrelated folder that was moved, or None.
    """

    root: Path
    is_new: bool
    moved: Path | None


def make_digit_folder(
    root: str | Path,
    spec: DigitSceneSpec | None = None,
    force: bool = False,
    report: Callable[[str], None] = print,
) -> DigitFolder:
    """Create the digit scenes of ``spec`` at ``root``.

    An identical data set is kept, remains of an interrupted call are removed.
    Several processes may call this at once; they wait for each other.

    Args:
        root: Folder of the data set.
        spec: Parameters. Defaults to ``DigitSceneSpec()``.
        force: Replace other content at ``root``: a different or damaged digit
            data set is deleted, anything else is moved aside.
        report: Called with each message.

    Raises:
        FileExistsError: If ``root`` is a file, or has other content and
            ``force`` is not set.
        ImportError: If scikit-learn is not installed.
    """
    root = Path(root).absolute()
    spec = spec or DigitSceneSpec()
    if root.exists() and not root.is_dir():
        raise FileExistsError(
            f'{root} is a file, not a folder; choose another path'
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root.parent / f'.{root.name}.lock'):
        difference = _find_difference(root, spec)
        if difference is None:
            return DigitFolder(root, False, None)
        is_blank = not root.exists() or not any(root.iterdir())
        if not is_blank and not force:
            raise FileExistsError(
                f'{root} contains {difference}; choose another path, or '
                'replace it with --force'
            )
        partial = root.parent / f'.{root.name}.partial'
        if partial.exists():
            report(f'Removing {partial} of an interrupted run.')
            shutil.rmtree(partial)
        partial.mkdir()
        _write_all(partial, spec)
        moved = None if is_blank else _make_room(root)
        os.rename(partial, root)
        return DigitFolder(root, True, moved)


def read_parameters(root: str | Path) -> DigitSceneSpec | None:
    """Read the spec of the digit scenes at ``root``, or None."""
    manifest = _read_manifest(Path(root))
    if manifest is None or manifest.get('generator') != _GENERATOR:
        return None
    try:
        return DigitSceneSpec(**manifest.get('parameters'))
    except (TypeError, ValueError):  # a damaged manifest
        return None


def _read_manifest(root: Path) -> dict | None:
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _find_difference(root: Path, spec: DigitSceneSpec) -> str | None:
    """Describe how ``root`` differs from ``spec``; None if it does not."""
    manifest = _read_manifest(root) or {}
    generator = manifest.get('generator')
    wanted, found = asdict(spec), manifest.get('parameters')
    if generator is None or not isinstance(found, dict):
        return 'something other than digit scenes'
    if generator != _GENERATOR:
        return f'digit scenes of another version ({generator})'
    if found != wanted:
        other = ', '.join(
            f'{name}={found.get(name)} instead of {wanted.get(name)}'
            for name in wanted | found
            if found.get(name) != wanted.get(name)
        )
        return f'digit scenes made with {other}'
    if manifest.get('sha256') != _hash_folder(root):
        return 'digit scenes with changed, missing or extra files'
    return None


def _make_room(root: Path) -> Path | None:
    """Delete digit scenes at ``root``; move anything else aside."""
    generator = (_read_manifest(root) or {}).get('generator')
    is_own = str(generator).startswith(_GENERATOR.rsplit(' ', 1)[0])
    if is_own and {entry.name for entry in root.iterdir()} <= _OWN_ENTRIES:
        shutil.rmtree(root)
        return None
    number = 1
    while (aside := root.with_name(f'{root.name}.old-{number}')).exists():
        number += 1
    os.rename(root, aside)
    return aside


def _write_all(root: Path, spec: DigitSceneSpec) -> None:
    photos = load_photos()
    pools = load_digit_pools(spec.seed)
    counts = (spec.num_train, spec.num_val)
    for split, (pool, count) in enumerate(zip(pools, counts)):
        _write_scenes(root, spec, pool, photos, split, count)
        _write_crops(root, spec, pool, photos, split)
    manifest = dict(
        generator=_GENERATOR,
        parameters=asdict(spec),
        sha256=_hash_folder(root),
    )
    _write_json(root / MANIFEST, manifest)


def _write_scenes(
    root: Path,
    spec: DigitSceneSpec,
    pool: DigitPool,
    photos: list[np.ndarray],
    split: int,
    count: int,
) -> None:
    name = _SCENE_FOLDERS[split]
    images, maps = root / 'images' / name, root / 'annotations' / name
    images.mkdir(parents=True)
    maps.mkdir(parents=True)
    scenes = []
    for index in range(count):
        scene = compose_scene(spec, pool, photos, split, index)
        _write_png(images / f'{index:06d}.png', scene.image)
        _write_png(
            maps / f'{index:06d}.png', semantic_map(scene.digits, spec.size)
        )
        scenes.append((f'{index:06d}.png', scene.digits))
    _write_json(
        root / 'annotations' / f'instances_{name}.json',
        coco_annotations(scenes, spec.size),
    )


def _write_crops(
    root: Path,
    spec: DigitSceneSpec,
    pool: DigitPool,
    photos: list[np.ndarray],
    split: int,
) -> None:
    folder = root / 'crops' / _CROP_FOLDERS[split]
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for digit, label, image in zip(*pool):
        crop = compose_crop(spec, image, photos, split, int(digit))
        _write_png(folder / str(label) / f'{digit:04d}.png', crop)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)


def _write_json(path: Path, content: dict) -> None:
    # Sorted keys and '\n' give the same bytes on every system.
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    path.write_bytes(text.encode() + b'\n')


def _hash_folder(root: Path) -> str:
    """Hash the names and contents of all files except the manifest."""
    total = hashlib.sha256()
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob('*')
        if path.is_file() and path != root / MANIFEST
    )
    for name in names:
        content = hashlib.sha256((root / name).read_bytes()).hexdigest()
        total.update(f'{name}\0{content}\n'.encode())
    return total.hexdigest()


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Lock a file; the lock is released even if the process is killed."""
    with open(lock, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
