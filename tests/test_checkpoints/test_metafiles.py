"""Metafile entries of published models, read by MIM and by mmattn."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mmpretrain
import pytest
from modelindex.load_model_index import load

from mmattn import zoo
from mmattn.checkpoints.metafiles import (
    add_entry,
    check_new_name,
    check_replaceable,
)
from mmattn.checkpoints.model_card import (
    Published,
    metafile_entry,
    write_card,
)

MODEL = Published(
    name='mine_digits',
    codebase='mmdet',
    backbone='BOATSwin',
    data='digit_scenes',
    files=(
        'mine_digits-76543210.py',
        'mine_digits-01234567.pth',
        'mine_digits-89abcdef.safetensors',
    ),
    parameters=1234,
    flops=5678,
    shape=(48, 64),
    metrics={'coco/bbox_mAP': 0.702, 'coco/segm_mAP': 0.77, 'mine': 3.0},
    environment={'torch': '2.11.0', 'on': 'cpu'},
    seed=0,
    seconds=None,
    schedule={'Epochs': 8},
)


def test_mim_and_mmattn_read_an_entry(tmp_path):
    add_entry(tmp_path, metafile_entry(MODEL))
    index = load(str(tmp_path / 'model-index.yml'))
    index.build_models_with_collections()
    (model,) = index.models
    assert model.name == 'mine_digits'
    assert model.metadata.parameters == 1234
    assert model.metadata.flops == 5678
    assert model.metadata.data['Seed'] == 0
    assert 'Training Time (s)' not in model.metadata.data
    assert [(r.task, r.dataset, r.metrics) for r in model.results] == [
        ('Object Detection', 'digit_scenes', {'box AP': 70.2, 'mine': 3.0}),
        ('Instance Segmentation', 'digit_scenes', {'mask AP': 77.0}),
    ]
    (ours,) = zoo.read_index(tmp_path / 'model-index.yml')
    assert ours.config == tmp_path / 'mine_digits' / MODEL.files[0]
    assert ours.weights == str(tmp_path / 'mine_digits' / MODEL.files[1])


def test_updating_an_entry_keeps_the_others(tmp_path):
    for model in (
        MODEL,
        MODEL._replace(name='other', backbone='SMT'),
        MODEL._replace(parameters=99),
    ):
        add_entry(tmp_path, metafile_entry(model))
    content = zoo.read_yaml(tmp_path / 'metafile.yml')
    assert [
        (m['Name'], m['Metadata']['Parameters']) for m in content['Models']
    ] == [('mine_digits', 99), ('other', 1234)]
    assert [c['Name'] for c in content['Collections']] == ['BOATSwin', 'SMT']


def test_entries_added_in_parallel(tmp_path):
    names = {f'mine_{i}' for i in range(12)}
    entries = [metafile_entry(MODEL._replace(name=n)) for n in names]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_entry, [tmp_path] * len(entries), entries))
    found = zoo.read_index(tmp_path / 'model-index.yml')
    assert {model.name for model in found} == names


def test_an_index_written_by_hand_is_extended(tmp_path):
    (tmp_path / 'model-index.yml').write_text('Import: [old.yml]')
    (tmp_path / 'old.yml').write_text('Models: [{Name: Old, Config: old.py}]')
    add_entry(tmp_path, metafile_entry(MODEL))
    found = zoo.read_index(tmp_path / 'model-index.yml')
    assert [model.name for model in found] == ['Old', 'mine_digits']


def test_only_models_are_replaced(tmp_path):
    (tmp_path / 'mine_digits').mkdir()
    with pytest.raises(FileExistsError, match='mine_digits'):
        check_replaceable('mine_digits', tmp_path)
    add_entry(tmp_path, metafile_entry(MODEL))
    check_replaceable('mine_digits', tmp_path)


def test_the_model_card(tmp_path):
    write_card(MODEL, tmp_path / 'README.md')
    text = (tmp_path / 'README.md').read_text()
    for line in (
        '| coco/bbox_mAP | 0.702 |',
        '| Parameters | 1234 |',
        '| Input Size | 48 x 64 |',
        '| mine_digits-89abcdef.safetensors | weights |',
        "detect = det_inferencer('mine_digits')",
        'python tools/test.py mine_digits mmattn://mine_digits',
    ):
        assert line in text.splitlines()
    assert 'torch 2.11.0, on cpu' in text


@pytest.mark.parametrize(
    'name, message',
    [
        ('Mine', "'Mine'"),
        ('../mine', 'lower-case'),
        ('boat-swin-tiny_8xb128-300e_in1k', 'mmattn/.mim'),
        ('resnet50_8xb32_in1k', 'mmpretrain'),
    ],
)
def test_names_that_are_taken(tmp_path, name, message):
    codebases = [Path(mmpretrain.__file__).parent]
    with pytest.raises(ValueError, match=message):
        check_new_name(name, tmp_path, codebases)


def test_names_of_the_same_zoo_can_be_updated(tmp_path, monkeypatch):
    monkeypatch.setenv('MMATTN_ZOO', str(tmp_path))
    add_entry(tmp_path, metafile_entry(MODEL))
    check_new_name('mine_digits', tmp_path, [])
    with pytest.raises(ValueError, match='already used'):
        check_new_name('mine_digits', tmp_path / 'another', [])
    # Names are case-insensitive.
    add_entry(tmp_path, metafile_entry(MODEL._replace(name='My-SMT')))
    with pytest.raises(ValueError, match='already used'):
        check_new_name('my-smt', tmp_path / 'another', [])
