"""Models by name, from the package and from local zoos."""

import os
import re
from collections import Counter
from pathlib import Path

import mmdet
import mmpretrain
import mmseg
import pytest

from mmattn import zoo

METAFILE = """
Models:
  - Name: mine_1xb8-1e_digits
    Config: mine/mine.py
    Weights: mine/mine-01234567.pth
    Results:
      - Task: Image Classification
  - Name: far_1xb8-1e_digits
    Config: far/far.py
    Weights: https://example.com/far-01234567.pth
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only local zoo, with two models."""
    (tmp_path / 'model-index.yml').write_text('Import: [metafile.yml]')
    (tmp_path / 'metafile.yml').write_text(METAFILE)
    monkeypatch.setenv('MMATTN_ZOO', str(tmp_path))
    return tmp_path


def test_shipped_models_are_found_in_any_case():
    names = zoo.list_models()
    assert 'boat-swin-tiny_8xb128-300e_in1k' in names
    for name in names:
        model = zoo.find_model(name.upper())
        assert model.name == name == model.config.stem
        assert model.config.is_file()
        assert model.tasks


def test_names_are_unique_also_among_the_codebases():
    names = [name.lower() for name in zoo.list_models()]
    assert [n for n, count in Counter(names).items() if count > 1] == []
    for codebase in (mmdet, mmseg, mmpretrain):
        theirs = zoo.codebase_models(Path(codebase.__file__).parent)
        assert len(theirs) > 100
        assert theirs & set(names) == set()


def test_a_local_zoo_adds_its_models(folder):
    model = zoo.find_model('mine_1xb8-1e_digits')
    assert model.config == folder / 'mine' / 'mine.py'
    assert model.weights == str(folder / 'mine' / 'mine-01234567.pth')
    assert model.tasks == ('Image Classification',)
    address = 'https://example.com/far-01234567.pth'
    assert zoo.find_weights('mmattn://far_1xb8-1e_digits') == address
    assert zoo.list_models()[-2:] == [
        'mine_1xb8-1e_digits',
        'far_1xb8-1e_digits',
    ]


def test_missing_zoos_are_skipped(folder, monkeypatch):
    both = os.pathsep.join(['/nowhere/at/all', str(folder)])
    monkeypatch.setenv('MMATTN_ZOO', both)
    assert zoo.zoo_folders()[0] == Path('/nowhere/at/all')
    assert zoo.find_model('mine_1xb8-1e_digits')


@pytest.mark.parametrize('value', [None, '', os.pathsep])
def test_the_default_zoo(value, monkeypatch):
    monkeypatch.delenv('MMATTN_ZOO', raising=False)
    if value is not None:
        monkeypatch.setenv('MMATTN_ZOO', value)
    assert zoo.zoo_folders() == [Path.home() / '.cache' / 'mmattn' / 'zoo']


@pytest.mark.parametrize(
    'text, message',
    [
        ('Models: [', 'YAML'),
        ('', 'Models'),
        ('- Models', 'Models'),
        ('Models: [{Name: mine}]', "'Config'"),
        ('Models: [mine]', 'Models'),
        ('Models: ' + '[' * 1000, 'nested'),
    ],
)
def test_a_broken_metafile(folder, text, message):
    (folder / 'metafile.yml').write_text(text)
    with pytest.raises(ValueError, match=f'(?s)metafile.yml.*{message}'):
        zoo.find_model('nowhere')


def test_unknown_names_get_suggestions():
    with pytest.raises(ValueError, match='boat-swin-tiny_8xb128-300e_in1k'):
        zoo.find_model('boat-swin-tiny_in1k')


def test_a_model_without_weights(folder):
    with pytest.raises(ValueError, match='no published weights'):
        zoo.find_weights('boat-swin-tiny_8xb128-300e_in1k')


def test_the_digest_in_a_name_is_checked(tmp_path):
    path = tmp_path / 'weights.pth'
    path.write_bytes(b'of a model')
    digest = zoo.file_digest(path)
    assert re.fullmatch('[0-9a-f]{8}', digest)
    zoo.check_digest(path)  # no digest
    kept = path.rename(tmp_path / f'weights-{digest}.pth')
    zoo.check_digest(kept)
    kept.write_bytes(b'of another')
    with pytest.raises(ValueError, match=digest):
        zoo.check_digest(kept)
    with pytest.raises(ValueError, match='mismatch'):
        zoo.check_digest(path.with_name(kept.name), f'a-{digest}.safetensors')


def test_a_date_is_not_a_digest(tmp_path):
    path = tmp_path / 'run-20260131.pth'
    path.write_bytes(b'')
    zoo.check_digest(path)
