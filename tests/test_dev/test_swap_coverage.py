"""Coverage runs and their page."""

import json

import pytest
import swap_coverage
from coverage_case import reduce_classes, run_case
from coverage_page import SOURCE_FAILS, render_page, returns_maps
from mmengine.config import utils as config_utils
from swap_coverage import Coverage, list_shipped, read_journal

from mmattn.swapping.source import config_root

SAMPLE = 6


@pytest.mark.parametrize('backbone', ['boat-swin-tiny', 'smt-tiny'])
@pytest.mark.parametrize('codebase', ['mmpretrain', 'mmseg', 'mmdet'])
def test_a_sample_passes_or_is_unsupported(
    codebase, backbone, tmp_path, monkeypatch
):
    # A run caches what mmengine reads; undo it after this test.
    monkeypatch.setattr(config_utils, 'load', config_utils.load)
    run = Coverage(codebase, backbone, tmp_path / 'journal.jsonl')
    rows = run.run(sample=SAMPLE, seed=3, jobs=2)
    assert len(rows) == SAMPLE
    wrong = [
        row
        for row in rows
        if row['status'] not in ('passed', 'unsupported')
        and row['reason'] != SOURCE_FAILS
    ]
    assert wrong == []
    assert sum(row['status'] == 'passed' for row in rows) >= SAMPLE // 2


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)  # on a busy machine
@pytest.mark.parametrize('backbone', ['boat-swin-tiny', 'smt-tiny'])
@pytest.mark.parametrize('codebase', ['mmpretrain', 'mmseg', 'mmdet'])
def test_nearly_all_that_return_maps_pass(codebase, backbone, tmp_path):
    rows = Coverage(codebase, backbone, tmp_path / 'journal.jsonl').run(jobs=2)
    rows = [row for row in rows if returns_maps(row)]
    passed = sum(row['status'] == 'passed' for row in rows)
    assert passed >= 0.95 * len(rows)


def test_bases_are_not_listed():
    names = list_shipped('mmdet')
    assert len(names) > 700
    assert not any('_base_' in name for name in names)
    assert (config_root('mmdet') / names[0].partition('::')[2]).is_file()


def test_interrupted_run_resumes(tmp_path, monkeypatch):
    tried = []

    def answer(calls, seconds, jobs):
        for name, _ in calls:
            tried.append(1)
            yield (
                name,
                dict(
                    status='failed' if len(tried) == 2 else 'passed',
                    reason='',
                    detail='',
                    algorithm='X',
                    key=str(len(tried)),
                ),
            )

    names = [f'mmdet::a/{i}.py' for i in range(3)]
    monkeypatch.setattr(swap_coverage, 'run_forked', answer)
    monkeypatch.setattr(swap_coverage, 'preload', lambda codebase: None)
    monkeypatch.setattr(swap_coverage, 'list_shipped', lambda codebase: names)
    journal = tmp_path / 'new' / 'journal.jsonl'
    run = Coverage('mmdet', 'boat-swin-nano', journal)
    assert [row['status'] for row in run.run()] == [
        'passed',
        'failed',
        'passed',
    ]
    journal.write_text(journal.read_text() + '{"truncated')
    assert len(tried) == 3
    run.run()
    assert len(tried) == 3
    rows = run.run(retry='failed')
    assert len(tried) == 4
    assert [row['status'] for row in rows] == ['passed'] * 3
    assert len(read_journal(journal)) == 3
    run.version = 'another'
    run.run(retry='changed')
    assert len(tried) == 7


def test_result_of_the_same_model_is_shared():
    name = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
    key = run_case(name, 'boat-swin-nano', {})['key']
    known = {key: dict(status='passed', reason='as before')}
    other = 'mmpretrain::resnet/resnet101_8xb32_in1k.py'
    row = run_case(other, 'boat-swin-nano', known)
    assert row['shared'] and row['reason'] == 'as before'


def test_classes_are_reduced_unless_other_options_count_them():
    head = dict(num_classes=1000)
    preprocessor = dict(num_classes=1000)
    config = dict(model=dict(head=head), data_preprocessor=preprocessor)
    assert reduce_classes(config)['model'] == dict(
        head=dict(num_classes=6), data_preprocessor=dict(num_classes=6)
    )
    assert head == preprocessor == dict(num_classes=1000)
    head['class_weight'] = [1.0] * 1000
    assert reduce_classes(config)['model']['head'] == head


def test_a_source_that_cannot_be_built():
    name = 'mmdet::cascade_rpn/cascade-rpn_r50-caffe_fpn_1x_coco.py'
    row = run_case(name, 'boat-swin-nano', {})
    assert (row['status'], row['reason']) == ('failed', SOURCE_FAILS)
    assert 'CascadeRPNHead' in row['detail']


@pytest.mark.parametrize(
    'codebase, strides, expected',
    [
        ('mmdet', [4, 8, 16, 32], True),
        ('mmseg', [4, 8, 8, 8], True),
        ('mmdet', [32], True),
        ('mmseg', [16, 16, 16, 16], False),
        ('mmseg', [16, 8, 4], False),
        ('mmpretrain', [32], True),
        ('mmpretrain', [0], False),
        ('mmpretrain', None, False),
    ],
)
def test_which_backbones_return_maps(codebase, strides, expected):
    assert returns_maps(dict(codebase=codebase, strides=strides)) is expected


def test_page_counts_exactly():
    base = dict(codebase='mmdet', backbone='smt-tiny', strides=[4, 8, 16, 32])
    base.update(algorithm='FCOS', reason='', detail='', version='1')
    rows = [
        dict(base, config=str(i), status='passed', key=f'{i % 2}')
        for i in range(3)
    ]
    rows[0]['bugs'] = ['SSD: loss_cls']
    right = dict(optimizer='right', layer_decay=False, exempt_biases=False)
    for row, result in zip(
        rows,
        (
            right,
            dict(right, layer_decay=True, exempt_biases=True),
            dict(right, optimizer='wrong', layer_decay=True),
        ),
    ):
        row.update(result)
    rows.append(dict(base, config='3', status='failed', detail='why < |'))
    rows.append(
        dict(base, config='4', status='unsupported', reason='no', strides=None)
    )
    page = render_page(json.loads(json.dumps(rows)), dict(mmdet=9))
    assert 'mmdet --backbone smt-tiny  # 5 of 9 configs' in page
    assert '2 models for 3 configs' in page
    counts = '| 5 | 3 (60.0%) | 1 | 2 (40.0%) | 1 | 0 | 1 | 0 |'
    assert f'| mmdet | smt-tiny {counts}' in page
    counts = '| 4 | 3 (75.0%) | 1 | 2 (50.0%) | 0 | 0 | 1 | 0 |'
    assert f'| mmdet | smt-tiny {counts}' in page
    assert '| mmdet | smt-tiny | 3 | 2 | 1 | 1 | 1 |' in page
    assert '| mmdet | SSD: loss_cls | smt-tiny: 1 | `BaseDenseHead' in page
    assert '| mmdet | GLIP: loss_bbox | none | ' in page
    assert '| mmdet | smt-tiny | unsupported | no | 1 |' in page
    assert '| mmdet | FCOS | smt-tiny | 3 | 1 |  | 1 |' in page
    assert '- `3`, smt-tiny: why &lt; &#124;' in page
