"""Maps of old backbones and which of ours replace them."""

import pytest
import torch.nn as nn

from mmattn.swapping.feature_maps import (
    FeatureMap,
    match_maps,
    probe_backbone,
    probe_neck,
    without_weights,
)
from mmattn.swapping.unsupported import UnsupportedSwap


def maps(*strides):
    return [
        FeatureMap(8 * (i + 1), stride) for i, stride in enumerate(strides)
    ]


@pytest.mark.parametrize(
    'strides, stages',
    [
        ((4, 8, 16, 32), [0, 1, 2, 3]),
        ((8, 16, 32), [1, 2, 3]),
        ((8, 16), [1, 2]),  # SSD
        ((16,), [2]),  # a dilated last stage, alone
        ((64,), [3]),
        ((4, 8, 8, 8), [0, 1, 2, 3]),  # dilated: depth decides
        ((2, 4, 8), [1, 2, 3]),
        ((16, 16, 16, 16), [2, 2, 2, 2]),  # a plain transformer
    ],
)
def test_maps_are_matched_by_stride_or_depth(strides, stages):
    assert match_maps(maps(*strides)) == stages


@pytest.mark.parametrize(
    'strides, reason',
    [
        ((16, 8, 4, 2, 1), 'decoder.*16, 8, 4, 2, 1'),
        ((2, 4, 8, 8, 8), 'more than 4 maps'),
    ],
)
def test_rejects_what_is_not_a_pyramid(strides, reason):
    with pytest.raises(UnsupportedSwap, match=reason):
        match_maps(maps(*strides))


def test_probe_finds_dilated_stages():
    cfg = dict(
        type='ResNetV1c',
        depth=18,
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
    )
    assert probe_backbone(cfg, 'mmseg') == [
        FeatureMap(64, 4),
        FeatureMap(128, 8),
        FeatureMap(256, 8),
        FeatureMap(512, 8),
    ]


def test_probe_runs_operations_without_meta_versions():
    cfg = dict(
        type='ResNet',
        depth=50,
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
    )
    assert probe_backbone(cfg, 'mmdet')[-1] == FeatureMap(2048, 32)


@pytest.mark.parametrize(
    'cfg, reason',
    [
        (dict(type='NoSuchBackbone'), 'NoSuchBackbone'),
        (
            dict(type='SimMIMSwinTransformer', arch='tiny', img_size=64),
            r'\(mask\)',
        ),
        (dict(type='LeNet5'), 'does not run'),
    ],
)
def test_probe_rejects_other_inputs_and_outputs(cfg, reason):
    with pytest.raises(UnsupportedSwap, match=reason):
        probe_backbone(cfg, 'mmpretrain')


def test_probe_of_a_neck_with_matching_and_other_maps():
    neck = dict(type='FPN', in_channels=[8, 16], out_channels=32, num_outs=3)
    made = probe_neck(neck, maps(8, 16), 'mmdet')
    assert made == [FeatureMap(32, 8), FeatureMap(32, 16), FeatureMap(32, 32)]
    with pytest.raises(UnsupportedSwap, match='FPN'):
        probe_neck(neck, maps(8, 16, 32), 'mmdet')


def test_modules_without_weights_are_on_meta():
    with without_weights():
        layer = nn.Linear(3, 5)
    assert layer.weight.is_meta and layer.weight.shape == (5, 3)
    assert not nn.Linear(3, 5).weight.is_meta
