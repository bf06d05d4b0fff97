"""Swaps of shipped configs."""

import shlex

import pytest
import torch
from mmengine.config import Config

from mmattn.backbones import AttentionPyramid, BOATSwin
from mmattn.swapping import (
    ChannelMismatch,
    SwapError,
    UnsupportedSwap,
    swap_backbone,
)
from mmattn.swapping.edits import plain
from mmattn.swapping.source import read_source

MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'


def swap(source, tmp_path, **options):
    out = tmp_path / 'swapped.py'
    swap_backbone(source, 'boat-swin-nano', out=out, **options)
    return Config.fromfile(out), out.read_text()


def test_detector_is_checked_and_written(tmp_path):
    cfg, text = swap(MASK_RCNN, tmp_path, check=True)
    assert f"_base_ = '{MASK_RCNN}'" in text
    assert cfg.model.backbone == dict(
        type='mmattn.BOATSwin', arch='nano', out_indices=(0, 1, 2, 3)
    )
    assert cfg.model.neck.in_channels == [24, 48, 96, 192]
    assert cfg.model.roi_head.type == 'StandardRoIHead'
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.constructor == (
        'mmattn.BackboneOptimWrapperConstructor'
    )


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py',
    ],
)
def test_rules_of_the_optimizer_are_kept(name, tmp_path):
    cfg, text = swap(name, tmp_path)
    old = read_source(name).config['optim_wrapper']
    constructor = 'mmattn.BackboneOptimWrapperConstructor'
    assert plain(cfg.optim_wrapper) == dict(old, constructor=constructor)
    assert text.count(constructor) == 1
    assert len(text.splitlines()) < 40


def test_a_detector_with_coarser_maps_is_rejected(tmp_path):
    source = 'mmdet::rtmdet/rtmdet_x_p6_4xb8-300e_coco.py'
    with pytest.raises(UnsupportedSwap, match='8, 16, 32 and 64'):
        swap(source, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('in_channels, mean', [(1, [0.5]), (4, None)])
def test_images_that_are_not_rgb(in_channels, mean, tmp_path):
    source = tmp_path / 'base.py'
    source.write_text(
        "_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'\n"
        'model = dict(\n'
        '    data_preprocessor=dict(\n'
        f'        mean={mean}, std={mean}, bgr_to_rgb=False),\n'
        f'    backbone=dict(in_channels={in_channels}, init_cfg=None))\n'
    )
    old = Config.fromfile(source).model.data_preprocessor
    cfg, _ = swap(str(source), tmp_path, check=True)
    assert cfg.model.backbone.in_channels == in_channels
    assert cfg.model.data_preprocessor == old


def test_wrong_channels_of_the_source_are_reported(tmp_path):
    source = tmp_path / 'base.py'
    source.write_text(
        "_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'\n"
        'model = dict(neck=dict(in_channels=[64, 128, 256, 512]))\n'
    )
    with pytest.raises(
        ChannelMismatch, match=r'\[64, 128, .*\[256, 512, 1024, 2048\]'
    ):
        swap(str(source), tmp_path)


def test_only_maps_that_are_read_are_returned(tmp_path):
    cfg, _ = swap('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', tmp_path)
    assert cfg.model.backbone.out_indices == (1, 2, 3)
    assert cfg.model.neck.in_channels == [48, 96, 192]
    assert cfg.model.neck.start_level == 0


def test_segmenter_by_name(tmp_path):
    name = 'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    cfg, _ = swap(f'mmseg::{name}', tmp_path, check=True)
    model = cfg.model
    assert model.pretrained is None
    assert model.backbone.out_indices == (2, 3)
    assert (model.decode_head.in_channels, model.decode_head.in_index) == (
        192,
        1,
    )
    assert model.auxiliary_head.in_channels == 96
    assert model.auxiliary_head.in_index == 0


def test_classifier(tmp_path):
    name = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
    cfg, _ = swap(name, tmp_path, keep_optimizer=True)
    assert cfg.model.backbone.out_indices == (3,)
    assert cfg.model.head.in_channels == 192
    assert cfg.optim_wrapper.optimizer.type == 'SGD'


def test_header_contains_the_command(tmp_path):
    base = tmp_path / 'my base.py'
    base.write_text("_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'\n")
    weights = tmp_path / 'weights.pth'
    torch.save(BOATSwin('nano').state_dict(), weights)
    _, text = swap(
        str(base), tmp_path, checkpoint=str(weights), keep_optimizer=True
    )
    command = text.split('written by\n')[1].split('\n\n')[0]
    assert shlex.split(command.replace('# ', '').replace('\\\n', '')) == [
        *('python', 'tools/swap_backbone.py', str(base)),
        *('--backbone', 'boat-swin-nano', '--checkpoint', str(weights)),
        '--keep-optimizer',
    ]


def test_weights_of_another_arch_are_rejected(tmp_path):
    weights = tmp_path / 'weights.pth'
    with torch.device('meta'):
        tiny = BOATSwin('tiny')
    state = {
        k: torch.zeros_like(v, device='cpu')
        for k, v in tiny.state_dict().items()
    }
    torch.save(state, weights)
    with pytest.raises(
        SwapError, match='BOATSwin tiny, not of mmattn.BOATSwin nano'
    ):
        swap(MASK_RCNN, tmp_path, checkpoint=str(weights))


def test_hints_of_other_weights_name_a_tool(tmp_path):
    weights = tmp_path / 'weights.pth'
    state = BOATSwin('nano').state_dict()
    torch.save({f'net.{k}': v for k, v in state.items()}, weights)
    with pytest.raises(SwapError, match='convert_checkpoint.py --prefix net.'):
        swap(MASK_RCNN, tmp_path, checkpoint=str(weights))


def test_weights_of_unknown_arch_are_accepted(tmp_path):
    weights, out = tmp_path / 'weights.pth', tmp_path / 'swapped.py'
    torch.save(AttentionPyramid('enltb-nano').state_dict(), weights)
    name = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
    swap_backbone(name, 'enltb-nano', out=out, checkpoint=str(weights))
    init_cfg = Config.fromfile(out).model.backbone.init_cfg
    assert init_cfg == dict(type='Pretrained', checkpoint=str(weights))


def test_unsupported_swap_writes_nothing(tmp_path):
    name = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py'
    with pytest.raises(UnsupportedSwap, match='RoI head'):
        swap(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_script_among_configs_has_no_model(tmp_path):
    with pytest.raises(UnsupportedSwap, match='no model'):
        swap('mmdet::glip/odinw/override_category.py', tmp_path)


def test_existing_file_is_kept(tmp_path):
    (tmp_path / 'swapped.py').write_text('# mine')
    with pytest.raises(SwapError, match='--force'):
        swap(MASK_RCNN, tmp_path)
    assert (tmp_path / 'swapped.py').read_text() == '# mine'


def test_the_source_is_never_overwritten(tmp_path):
    base = tmp_path / 'swapped.py'
    text = "_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'\n"
    base.write_text(text)
    with pytest.raises(SwapError, match='source'):
        swap(str(base), tmp_path, force=True)
    assert base.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ['swapped.py']
