"""Errors that the check of a model finds."""

import pytest

from mmattn.swapping.checking import CheckFailed, check_model, shrink_model

NETWORK = ('model',)


def classifier(**head):
    return dict(
        model=dict(
            type='ImageClassifier',
            backbone=dict(
                type='mmattn.BOATSwin', arch='nano', out_indices=(3,)
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=1000,
                in_channels=192,
                loss=dict(type='CrossEntropyLoss'),
                **head,
            ),
        )
    )


def test_a_working_model_passes():
    assert check_model(classifier(), 'mmpretrain', NETWORK) is True


def test_wrong_channels_fail():
    config = classifier()
    config['model']['head']['in_channels'] = 96
    with pytest.raises(CheckFailed, match='loss: RuntimeError: mat1 and mat2'):
        check_model(config, 'mmpretrain', NETWORK)


def test_a_map_that_is_not_read_fails():
    config = classifier()
    config['model']['backbone']['out_indices'] = (2, 3)
    # The head takes the last map: the norm of the other has no gradient.
    with pytest.raises(CheckFailed, match='norm2.weight'):
        check_model(config, 'mmpretrain', NETWORK)


def test_an_infinite_loss_fails():
    config = classifier()
    config['model']['head']['loss']['loss_weight'] = float('inf')
    with pytest.raises(CheckFailed, match='loss: it is inf'):
        check_model(config, 'mmpretrain', NETWORK)


def test_an_unknown_type_fails():
    config = classifier()
    config['model']['neck'] = dict(type='NoSuchNeck')
    with pytest.raises(CheckFailed, match='build: KeyError'):
        check_model(config, 'mmpretrain', NETWORK)


def test_an_algorithm_without_a_loss_passes():
    # mmpretrain has no training for the distilled head of LeViT.
    config = classifier()
    config['model']['head'] = dict(
        type='LeViTClsHead',
        num_classes=10,
        in_channels=192,
        loss=dict(type='CrossEntropyLoss'),
    )
    assert check_model(config, 'mmpretrain', NETWORK) is False


def test_options_independent_of_the_backbone_are_reduced():
    config = classifier(init_cfg=dict(type='TruncNormal'))
    config['model']['head']['max_per_img'] = 100
    small = shrink_model(config)['head']
    assert 'init_cfg' not in small and small['max_per_img'] == 20
    assert config['model']['head']['max_per_img'] == 100
