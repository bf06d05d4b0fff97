"""Models of configs of mmdet, mmseg and mmpretrain."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmattn.analysis import count_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def count(name, shape, **kwargs):
    return count_config(Config.fromfile(CONFIGS / name), shape, **kwargs)


def test_classifier():
    cost = count('swin/swin-nano_1xb32-25e_digits.py', (64, 64))
    assert cost.multiply_adds == (
        cost.modules['backbone'].multiply_adds
        + cost.modules['head'].multiply_adds
    )
    assert cost.modules['head.fc'].multiply_adds == 192 * 10
    assert cost.modules['head.fc'].parameters == 192 * 10 + 10


def test_segmenter_without_the_head_that_training_alone_uses():
    cost = count('swin/upernet_swin-nano_1xb8-8e_digits.py', (64, 96))
    parts = cost.modules
    assert parts['auxiliary_head'].multiply_adds == 0
    assert parts['auxiliary_head'].parameters > 0
    assert parts['decode_head.conv_seg'].multiply_adds == (
        parts['decode_head.conv_seg'].parameters - 11
    ) * (16 * 24)
    assert cost.multiply_adds == (
        parts['backbone'].multiply_adds + parts['decode_head'].multiply_adds
    )


def test_detector_of_two_stages():
    cost = count('swin/mask-rcnn_swin-nano_fpn_1xb8-8e_digits.py', (64, 96))
    parts = cost.modules
    names = ('backbone', 'neck', 'rpn_head', 'roi_head')
    assert cost.multiply_adds == sum(parts[n].multiply_adds for n in names)
    assert all(parts[name].multiply_adds for name in names)
    # The first linear layer sees each proposal once.
    layer = parts['roi_head.bbox_head.shared_fcs.0']
    assert layer.multiply_adds % (layer.parameters - 256) == 0
    proposals = layer.multiply_adds // (layer.parameters - 256)
    assert 0 < proposals <= 1000


@pytest.mark.parametrize('channels', [1, 3])
def test_channels_and_shape(channels):
    cfg = Config.fromfile(CONFIGS / 'swin/swin-nano_1xb32-25e_digits.py')
    cfg.model.backbone.in_channels = channels
    small = count_config(cfg, (32, 64), in_channels=channels)
    large = count_config(cfg, (64, 128), in_channels=channels)
    stem = 'backbone.patch_embed'
    assert small.modules[stem].multiply_adds == 8 * 16 * 24 * channels * 16
    assert (
        large.modules[stem].multiply_adds
        == 4 * small.modules[stem].multiply_adds
    )
