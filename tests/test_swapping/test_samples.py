"""Samples as the data loaders of the codebases return them."""

import numpy as np
import pytest

from mmattn.swapping.samples import loads_masks, make_batch

LOADER = dict(
    dataset=dict(
        dataset=dict(pipeline=[dict(type='LoadAnnotations', with_bbox=True)])
    )
)


def detector(**model):
    model = dict(dict(type='FasterRCNN', rpn_head=dict()), **model)
    return dict(model=model, train_dataloader=LOADER)


def test_masks_exist_where_they_are_loaded():
    assert not loads_masks(dict(train_dataloader=LOADER))
    assert loads_masks(dict())  # unknown
    pipeline = [dict(type='LoadAnnotations', with_mask=True)]
    dataset = dict(
        type='MultiImageMixDataset', dataset=dict(pipeline=pipeline)
    )
    assert loads_masks(dict(train_dataloader=dict(dataset=dataset)))
    pytest.importorskip('mmdet')
    config = detector()
    sample = make_batch(config, 'mmdet', True)['data_samples'][0]
    assert 'masks' not in sample.gt_instances
    config.pop('train_dataloader')
    sample = make_batch(config, 'mmdet', True)['data_samples'][0]
    assert sample.gt_instances.masks.masks.shape == (2, 64, 96)


def test_proposals_exist_where_no_rpn_makes_them():
    pytest.importorskip('mmdet')
    for model, given in (
        (dict(), False),
        (dict(detector=dict(rpn_head=dict())), False),
        (dict(detector=dict(bbox_head=dict())), True),
    ):
        batch = make_batch(detector(**model), 'mmdet', True)
        assert ('proposals' in batch['data_samples'][0]) is given


def test_detectors_predict_on_one_image():
    pytest.importorskip('mmdet')
    batch = make_batch(detector(), 'mmdet', False, (128, 192))
    assert [image.shape for image in batch['inputs']] == [(3, 128, 192)]
    assert len(batch['data_samples']) == 1
    assert len(make_batch(detector(), 'mmdet', True)['inputs']) == 2


@pytest.mark.parametrize('channels', [1, 4])
@pytest.mark.parametrize('codebase', ['mmdet', 'mmseg', 'mmpretrain'])
def test_images_have_the_channels_of_the_backbone(codebase, channels):
    pytest.importorskip(codebase)
    config = detector(backbone=dict(type='X', in_channels=channels))
    if codebase == 'mmpretrain':
        config['model']['type'] = 'ImageClassifier'
    for training in (True, False):
        batch = make_batch(config, codebase, training)
        assert {len(image) for image in batch['inputs']} == {channels}


def test_views_of_a_semi_supervised_detector():
    pytest.importorskip('mmdet')
    config = dict(model=dict(type='SoftTeacher', detector=dict()))
    batch = make_batch(config, 'mmdet', True)
    assert set(batch['inputs']) == {'sup', 'unsup_teacher', 'unsup_student'}
    sample = batch['data_samples']['unsup_student'][0]
    assert sample.homography_matrix.dtype == np.float32
