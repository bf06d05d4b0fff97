"""Maps of old backbones, and which of ours take their place."""

import pytest
import torch.nn as nn

from mmattn.swapping.levels import (
    Level,
    match_levels,
    probe_backbone,
    probe_neck,
    without_weights,
)
from mmattn.swapping.refusal import SwapRefused


def levels(*strides):
    return [Level(8 * (i + 1), stride) for i, stride in enumerate(strides)]


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
def test_strides_decide_and_depth_where_they_cannot(strides, stages):
    assert match_levels(levels(*strides)) == stages


@pytest.mark.parametrize(
    'strides, reason',
    [
        ((16, 8, 4, 2, 1), 'decoded or come from branches.*16, 8, 4, 2, 1'),
        ((2, 4, 8, 8, 8), 'more than 4 maps'),
    ],
)
def test_refuses_what_is_no_pyramid(strides, reason):
    with pytest.raises(SwapRefused, match=reason):
        match_levels(levels(*strides))


def test_probe_finds_dilated_stages():
    cfg = dict(
        type='ResNetV1c',
        depth=18,
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
    )
    assert probe_backbone(cfg, 'mmseg') == [
        Level(64, 4),
        Level(128, 8),
        Level(256, 8),
        Level(512, 8),
    ]


def test_probe_runs_operations_that_know_no_shapes():
    cfg = dict(
        type='ResNet',
        depth=50,
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
    )
    assert probe_backbone(cfg, 'mmdet')[-1] == Level(2048, 32)


@pytest.mark.parametrize(
    'cfg, reason',
    [
        (dict(type='NoSuchBackbone'), 'cannot be built here'),
        (
            dict(type='SimMIMSwinTransformer', arch='tiny', img_size=64),
            r'takes more than images \(mask\)',
        ),
        (dict(type='LeNet5'), 'does not run on an RGB image'),
    ],
)
def test_probe_refuses_what_takes_or_gives_something_else(cfg, reason):
    with pytest.raises(SwapRefused, match=reason):
        probe_backbone(cfg, 'mmpretrain')


def test_probe_of_a_neck_and_of_one_that_does_not_fit():
    neck = dict(type='FPN', in_channels=[8, 16], out_channels=32, num_outs=3)
    made = probe_neck(neck, levels(8, 16), 'mmdet')
    assert made == [Level(32, 8), Level(32, 16), Level(32, 32)]
    with pytest.raises(SwapRefused, match='its neck FPN does not take'):
        probe_neck(neck, levels(8, 16, 32), 'mmdet')


def test_modules_without_weights_have_shapes_only():
    with without_weights():
        layer = nn.Linear(3, 5)
    assert layer.weight.is_meta and layer.weight.shape == (5, 3)
    assert not nn.Linear(3, 5).weight.is_meta
