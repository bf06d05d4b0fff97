"""Errors that the check of a model finds."""

import pytest
import torch
import torch.nn as nn

from mmattn.swapping.cheap_build import shared_numbers, shared_weights
from mmattn.swapping.checking import CheckFailed, check_model, shrink_model
from mmattn.swapping.fakes import _lapjv

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
    checked = check_model(classifier(), 'mmpretrain', NETWORK)
    assert checked == (True, (64, 96), ())


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
    assert not check_model(config, 'mmpretrain', NETWORK).has_loss


def test_options_independent_of_the_backbone_are_reduced():
    config = classifier(init_cfg=dict(type='TruncNormal'))
    small = shrink_model(config)
    assert small['head']['num_classes'] == 6
    assert 'init_cfg' not in small['head']
    assert config['model']['head']['num_classes'] == 1000
    weighed = shrink_model(classifier(class_weight=[1.0] * 1000))
    assert weighed['head']['num_classes'] == 1000


def test_large_weights_share_memory():
    with shared_weights():
        large, small = nn.Linear(256, 256), nn.Linear(3, 3)
    storage = shared_numbers().untyped_storage().data_ptr()
    assert large.weight.untyped_storage().data_ptr() == storage
    assert small.weight.untyped_storage().data_ptr() != storage
    own = nn.Linear(256, 256).weight
    assert own.untyped_storage().data_ptr() != storage
    assert 0.01 < large.weight.std() < 0.03
    assert torch.equal(shared_numbers()[:256], large.weight.flatten()[:256])


def test_solver_leaves_expensive_pairs_unmatched():
    cost = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.9, 0.9]]).numpy()
    total, columns, rows = _lapjv(cost, extend_cost=True, cost_limit=0.6)
    assert columns.tolist() == [2, 0]
    assert rows.tolist() == [1, -1, 0]
    assert total == pytest.approx(0.7)
