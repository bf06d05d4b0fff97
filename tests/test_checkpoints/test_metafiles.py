"""Entries that publishing adds to a zoo, read by MIM's and our readers."""

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
    host='mmdet',
    backbone='BOATSwin',
    data='digit_scenes',
    files=('mine_digits-01234567.pth', 'mine_digits-89abcdef.safetensors'),
    parameters=1234,
    flops=5678,
    shape=(48, 64),
    metrics={'coco/bbox_mAP': 0.702, 'coco/segm_mAP': 0.77, 'mine': 3.0},
    environment={'torch': '2.11.0', 'on': 'cpu'},
    seed=0,
    seconds=None,
    schedule={'Epochs': 8},
)


def test_an_entry_is_read_by_mim_and_by_us(tmp_path):
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
    assert ours.config == tmp_path / 'mine_digits' / 'mine_digits.py'
    assert ours.weights == str(tmp_path / 'mine_digits' / MODEL.files[0])


def test_an_entry_is_updated_and_the_others_stay(tmp_path):
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


def test_entries_that_are_added_at_once_all_stay(tmp_path):
    names = {f'mine_{i}' for i in range(12)}
    entries = [metafile_entry(MODEL._replace(name=n)) for n in names]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_entry, [tmp_path] * len(entries), entries))
    found = zoo.read_index(tmp_path / 'model-index.yml')
    assert {model.name for model in found} == names


def test_an_index_of_another_hand_names_the_entry_too(tmp_path):
    (tmp_path / 'model-index.yml').write_text('Import: [old.yml]')
    (tmp_path / 'old.yml').write_text('Models: [{Name: Old, Config: old.py}]')
    add_entry(tmp_path, metafile_entry(MODEL))
    found = zoo.read_index(tmp_path / 'model-index.yml')
    assert [model.name for model in found] == ['Old', 'mine_digits']


def test_only_a_model_is_replaced(tmp_path):
    (tmp_path / 'mine_digits').mkdir()
    with pytest.raises(FileExistsError, match='mine_digits, which is no mod'):
        check_replaceable('mine_digits', tmp_path)
    add_entry(tmp_path, metafile_entry(MODEL))
    check_replaceable('mine_digits', tmp_path)


def test_a_card_says_what_was_measured_and_how_to_load(tmp_path):
    write_card(MODEL, tmp_path / 'README.md')
    text = (tmp_path / 'README.md').read_text()
    for line in (
        '| coco/bbox_mAP | 0.702 |',
        '| Parameters | 1234 |',
        '| Input Size | 48 x 64 |',
        '| mine_digits-89abcdef.safetensors | tensors alone |',
        "detect = det_inferencer('mine_digits')",
        'python tools/test.py mine_digits mmattn://mine_digits',
    ):
        assert line in text.splitlines()
    assert 'torch 2.11.0, on cpu' in text


@pytest.mark.parametrize(
    'name, message',
    [
        ('Mine', "small letters, digits and ._- for a model, got 'Mine'"),
        ('../mine', 'small letters'),
        ('boat-swin-tiny_8xb128-300e_in1k', 'which is one of .*mmattn/.mim'),
        ('resnet50_8xb32_in1k', 'which is one of .*mmpretrain'),
    ],
)
def test_names_that_mean_something_are_refused(tmp_path, name, message):
    hosts = [Path(mmpretrain.__file__).parent]
    with pytest.raises(ValueError, match=message):
        check_new_name(name, tmp_path, hosts)


def test_a_name_of_the_same_zoo_may_be_updated(tmp_path, monkeypatch):
    monkeypatch.setenv('MMATTN_ZOO', str(tmp_path))
    add_entry(tmp_path, metafile_entry(MODEL))
    check_new_name('mine_digits', tmp_path, [])
    with pytest.raises(ValueError, match='a new name .* choose another'):
        check_new_name('mine_digits', tmp_path / 'another', [])
    # Models are found in any case of the letters.
    add_entry(tmp_path, metafile_entry(MODEL._replace(name='My-SMT')))
    with pytest.raises(ValueError, match="a new name .* got 'my-smt'"):
        check_new_name('my-smt', tmp_path / 'another', [])
