import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mmattn.datasets import (
    DigitSceneSpec,
    make_digit_folder,
    read_parameters,
)
from mmattn.datasets.digit_glyphs import load_digit_pools

SPEC = DigitSceneSpec(seed=3, num_train=5, num_val=3, size=64)
TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'make_digit_scenes.py'


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('data') / 'digit_scenes'
    assert make_digit_folder(path, SPEC).is_new
    return path


def contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


def run_tool(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *args], capture_output=True, text=True
    )


def test_the_same_seed_gives_the_same_files(root, tmp_path):
    out = tmp_path / 'again'
    done = run_tool(
        *('--out', str(out), '--seed', '3', '--train', '5'),
        *('--val', '3', '--size', '64'),
    )
    assert done.returncode == 0, done.stderr
    assert '5 training and 3 validation scenes of 64 x 64' in done.stdout
    assert contents(out) == contents(root)


def test_another_seed_gives_other_scenes(root, tmp_path, few_digits):
    other = tmp_path / 'other'
    make_digit_folder(other, DigitSceneSpec(4, 5, 3, 64))
    name = 'images/training/000000.png'
    assert contents(other)[name] != contents(root)[name]


def test_a_scene_does_not_depend_on_their_number(root, tmp_path):
    few = tmp_path / 'few'
    make_digit_folder(few, DigitSceneSpec(3, 1, 1, 64))
    there = contents(root)
    kept = {
        name: digest
        for name, digest in contents(few).items()
        if name.endswith('.png')
    }
    assert kept.items() <= there.items()


@pytest.mark.parametrize('split', ['training', 'validation'])
def test_boxes_masks_and_class_maps_agree(root, split):
    coco = COCO(root / 'annotations' / f'instances_{split}.json')
    assert len(coco.imgs) == (5 if split == 'training' else 3)
    assert {c['id']: c['name'] for c in coco.cats.values()} == {
        d + 1: str(d) for d in range(10)
    }
    for image in coco.imgs.values():
        name = image['file_name']
        pixels = Image.open(root / 'images' / split / name)
        assert (pixels.mode, pixels.size) == ('RGB', (64, 64))
        classes = Image.open(root / 'annotations' / split / name)
        assert classes.mode == 'L'
        expected = np.zeros((64, 64), dtype=int)
        boxes = np.zeros((64, 64), dtype=int)
        annotations = coco.imgToAnns[image['id']]
        assert annotations
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation['bbox']
            assert (left, top) == (columns.min(), rows.min())
            assert left + width == columns.max() + 1
            assert top + height == rows.max() + 1
            assert annotation['area'] == mask.sum()
            expected[mask] = annotation['category_id']
            boxes[top : top + height, left : left + width] += 1
        assert boxes.max() == 1  # nothing overlaps
        np.testing.assert_array_equal(np.asarray(classes), expected)


def test_no_digit_is_in_both_splits(root):
    digits = {}
    for split in ('training', 'validation'):
        path = root / 'annotations' / f'instances_{split}.json'
        annotations = json.loads(path.read_text())['annotations']
        digits[split] = {a['digit_index'] for a in annotations}
    crops = {
        split: {int(p.stem) for p in (root / 'crops' / split).rglob('*.png')}
        for split in ('train', 'val')
    }
    assert crops['train'].isdisjoint(crops['val'])
    assert crops['train'] | crops['val'] == set(range(1797))
    assert digits['training'] <= crops['train']
    assert digits['validation'] <= crops['val']


def test_crops_are_in_the_folder_of_their_digit(root):
    from sklearn.datasets import load_digits

    labels = load_digits().target
    paths = list((root / 'crops').rglob('*.png'))
    assert all(labels[int(p.stem)] == int(p.parent.name) for p in paths)
    assert {Image.open(p).size for p in paths[:20]} == {(24, 24)}


def test_the_same_data_set_is_kept(root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob('*')}
    folder = make_digit_folder(root, SPEC)
    assert (folder.is_new, folder.moved) == (False, None)
    assert {p: p.stat().st_mtime_ns for p in root.rglob('*')} == before
    assert read_parameters(root) == SPEC


def test_other_parameters_are_not_overwritten(root):
    before = contents(root)
    with pytest.raises(FileExistsError, match='seed=3.*--force'):
        make_digit_folder(root, DigitSceneSpec(5, 5, 3, 64))
    assert contents(root) == before


@pytest.fixture
def few_digits(monkeypatch):
    """Fewer crops: most of the time goes into writing them."""
    from mmattn.datasets import digit_folder

    def load(seed):
        return tuple(
            type(pool)(*(field[:20] for field in pool))
            for pool in load_digit_pools(seed)
        )

    monkeypatch.setattr(digit_folder, 'load_digit_pools', load)


@pytest.fixture
def small(tmp_path, few_digits) -> Path:
    path = tmp_path / 'digit_scenes'
    make_digit_folder(path, DigitSceneSpec(0, 1, 1, 64))
    return path


@pytest.mark.parametrize(
    'change',
    [{'generator': 5}, {'parameters': [1]}, {'parameters': {'sides': 3}}],
)
def test_a_damaged_manifest(small, change):
    file = small / 'manifest.json'
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | change))
    assert read_parameters(small) is None
    spec = DigitSceneSpec(0, 1, 1, 64)
    with pytest.raises(FileExistsError, match='other than digit scenes'):
        make_digit_folder(small, spec)
    folder = make_digit_folder(small, spec, force=True)
    aside = small.with_name('digit_scenes.old-1')
    assert (folder.is_new, folder.moved) == (True, aside)
    assert json.loads(file.read_text()) == whole


def test_other_files_are_kept_even_with_force(tmp_path):
    out = tmp_path / 'holidays'
    out.mkdir()
    (out / 'beach.jpg').write_bytes(b'sea')
    args = ('--out', str(out), '--train', '1', '--val', '1', '--size', '64')
    rejected = run_tool(*args)
    assert rejected.returncode == 2
    assert 'other than digit scenes' in rejected.stderr
    assert os.listdir(out) == ['beach.jpg']
    forced = run_tool(*args, '--force')
    assert forced.returncode == 0, forced.stderr
    aside = tmp_path / 'holidays.old-1'
    assert f'to {aside}' in forced.stdout
    assert (aside / 'beach.jpg').read_bytes() == b'sea'
    assert read_parameters(out) == DigitSceneSpec(0, 1, 1, 64)


def test_an_interrupted_run_is_repeated(tmp_path, monkeypatch, few_digits):
    out = tmp_path / 'digit_scenes'
    spec = DigitSceneSpec(0, 2, 1, 64)
    calls = []

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return write(*args)

    from mmattn.datasets import digit_folder

    write = digit_folder._write_png
    monkeypatch.setattr(digit_folder, '_write_png', interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_digit_folder(out, spec)
    assert not os.listdir(tmp_path)
    monkeypatch.setattr(digit_folder, '_write_png', write)
    assert make_digit_folder(out, spec).is_new
    assert os.listdir(tmp_path) == ['digit_scenes']


def test_the_path_is_a_file(tmp_path):
    path = tmp_path / 'file'
    path.write_text('')
    with pytest.raises(FileExistsError, match='is a file'):
        make_digit_folder(path, SPEC)


def test_read_parameters_without_a_data_set(tmp_path):
    assert read_parameters(tmp_path) is None
    (tmp_path / 'manifest.json').write_text('{"generator": "else"}')
    assert read_parameters(tmp_path) is None


def test_the_tool_rejects_a_wrong_size(tmp_path):
    done = run_tool('--out', str(tmp_path / 'x'), '--size', '100')
    assert done.returncode == 2
    assert 'multiple of 8' in done.stderr
