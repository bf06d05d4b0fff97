"""Necks and heads that do not fit an mmattn backbone."""

import pytest

from mmattn.swapping import ChannelMismatch, check_channels

BACKBONE = dict(type='mmattn.BOATSwin', arch='nano')


def detector(in_channels, head_channels=64):
    return dict(
        model=dict(
            type='FCOS',
            backbone=BACKBONE,
            neck=dict(
                type='FPN',
                in_channels=in_channels,
                out_channels=64,
                num_outs=5,
            ),
            bbox_head=dict(type='FCOSHead', in_channels=head_channels),
        )
    )


def segmentor(in_channels, in_index=3):
    head = dict(type='FCNHead', in_channels=in_channels, in_index=in_index)
    return dict(model=dict(backbone=BACKBONE, decode_head=head))


def classifier(in_channels):
    return dict(
        model=dict(
            backbone=dict(BACKBONE, out_indices=(3,)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', in_channels=in_channels),
        )
    )


@pytest.mark.parametrize(
    'config, codebase',
    [
        (detector([24, 48, 96, 192]), 'mmdet'),
        (segmentor(192), 'mmseg'),
        (segmentor([24, 192], [0, 3]), 'mmseg'),
        (classifier(192), 'mmpretrain'),
        # Other backbones and models are not checked.
        (dict(model=dict(type='X')), 'mmdet'),
        (dict(model=dict(backbone=dict(type='ResNet', depth=50))), 'mmdet'),
    ],
)
def test_channels_that_fit(config, codebase):
    check_channels(config, codebase)


@pytest.mark.parametrize(
    'config, codebase, expected, given',
    [
        (
            detector([256, 512, 1024, 2048]),
            'mmdet',
            r'\[256, 512, 1024, 2048\]',
            r'\[24, 48, 96, 192\]',
        ),
        (detector([24, 48, 96, 192], 256), 'mmdet', '256', r'\[64, 64, '),
        (segmentor(2048), 'mmseg', '2048', '192'),
        (segmentor([24, 48], [0, 3]), 'mmseg', r'\[24, 48\]', r'\[24, 192\]'),
        (classifier(2048), 'mmpretrain', '2048', r'\[192\]'),
    ],
)
def test_channels_that_do_not_fit(config, codebase, expected, given):
    with pytest.raises(
        ChannelMismatch, match=f'in_channels={expected}.*out_channels={given}'
    ):
        check_channels(config, codebase)
