"""Models by name, in the package and in local zoos."""

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
    """A local zoo of two models, the only one."""
    (tmp_path / 'model-index.yml').write_text('Import: [metafile.yml]')
    (tmp_path / 'metafile.yml').write_text(METAFILE)
    monkeypatch.setenv('MMATTN_ZOO', str(tmp_path))
    return tmp_path


def test_every_shipped_model_is_found_in_any_case():
    names = zoo.list_models()
    assert 'boat-swin-tiny_8xb128-300e_in1k' in names
    for name in names:
        model = zoo.find_model(name.upper())
        assert model.name == name == model.config.stem
        assert model.config.is_file()
        assert model.tasks


def test_names_are_unique_also_among_those_of_the_hosts():
    names = [name.lower() for name in zoo.list_models()]
    assert [n for n, count in Counter(names).items() if count > 1] == []
    for host in (mmdet, mmseg, mmpretrain):
        theirs = zoo.host_names(Path(host.__file__).parent)
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


def test_several_zoos_are_read_where_they_are_there(folder, monkeypatch):
    both = os.pathsep.join(['/nowhere/at/all', str(folder)])
    monkeypatch.setenv('MMATTN_ZOO', both)
    assert zoo.zoo_folders()[0] == Path('/nowhere/at/all')
    assert zoo.find_model('mine_1xb8-1e_digits')


@pytest.mark.parametrize('named', [None, '', os.pathsep])
def test_without_a_name_the_zoo_is_the_users(named, monkeypatch):
    monkeypatch.delenv('MMATTN_ZOO', raising=False)
    if named is not None:
        monkeypatch.setenv('MMATTN_ZOO', named)
    assert zoo.zoo_folders() == [Path.home() / '.cache' / 'mmattn' / 'zoo']


@pytest.mark.parametrize(
    'text, message',
    [
        ('Models: [', 'expects yaml, got .*metafile.yml: while parsing'),
        ('', 'expects a list Models in .*metafile.yml, got none; mend'),
        ('- Models', 'expects a list Models in .*metafile.yml'),
        ('Models: [{Name: mine}]', r"metafile.yml \(KeyError: 'Config'\); m"),
        ('Models: [mine]', r'metafile.yml \(AttributeError: '),
    ],
)
def test_a_broken_metafile_is_named(folder, text, message):
    (folder / 'metafile.yml').write_text(text)
    with pytest.raises(ValueError, match=f'(?s){message}'):
        zoo.find_model('nowhere')


def test_unknown_names_are_answered_with_alike_ones():
    with pytest.raises(
        ValueError, match='one of its .*boat-swin-tiny_8xb128-300e_in1k'
    ):
        zoo.find_model('boat-swin-tiny_in1k')


def test_a_model_without_weights_says_so(folder):
    with pytest.raises(ValueError, match='tiny_8xb128-300e_in1k, which has n'):
        zoo.find_weights('boat-swin-tiny_8xb128-300e_in1k')


def test_a_name_with_a_digest_is_a_promise(tmp_path):
    path = tmp_path / 'weights.pth'
    path.write_bytes(b'of a model')
    digest = zoo.file_digest(path)
    assert re.fullmatch('[0-9a-f]{8}', digest)
    zoo.check_digest(path)  # promises nothing
    kept = path.rename(tmp_path / f'weights-{digest}.pth')
    zoo.check_digest(kept)
    kept.write_bytes(b'of another')
    with pytest.raises(ValueError, match=f'begins with {digest}, as its name'):
        zoo.check_digest(kept)
    with pytest.raises(ValueError, match='altered or damaged'):
        zoo.check_digest(path.with_name(kept.name), f'a-{digest}.safetensors')


def test_a_date_is_no_digest(tmp_path):
    path = tmp_path / 'run-20260131.pth'
    path.write_bytes(b'')
    zoo.check_digest(path)
