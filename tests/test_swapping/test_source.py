"""Configs by path and by name."""

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmattn.errors import UsageError
from mmattn.swapping.families import find_family
from mmattn.swapping.source import (
    Source,
    read_source,
    shorten_types,
)
from mmattn.swapping.swap import new_name
from mmattn.swapping.unsupported import SwapError


@pytest.mark.parametrize(
    'name',
    [
        'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        # mmengine does not accept a dot in the first folder.
        'mmdet::legacy_1.x/retinanet_r50_fpn_1x_coco_v1.py',
    ],
)
def test_shipped_config_is_inherited_by_name(name, tmp_path):
    source = read_source(name)
    codebase = name.partition('::')[0]
    assert (source.codebase, source.name) == (codebase, name)
    child = tmp_path / 'child.py'
    child.write_text(f'_base_ = {source.base_for(child)}\n')
    assert Config.fromfile(child).model.type == source.config['model']['type']
    # By its path it is the same config.
    assert read_source(str(source.path)).name == name


def test_own_config_is_inherited_by_a_relative_path(tmp_path):
    path = tmp_path / 'a' / 'mine.py'
    path.parent.mkdir()
    path.write_text("default_scope = 'mmdet'\nmodel = dict(type='X')\n")
    source = read_source(str(path))
    assert source.base_for(tmp_path / 'b' / 'new.py') == "'../a/mine.py'"


def test_base_of_mmseg_is_found_without_mmattn(tmp_path):
    name = 'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    child = tmp_path / 'child.py'
    child.write_text(f'_base_ = {read_source(name).base_for(child)}\n')
    code = (
        'import sys; from mmengine.config import Config; '
        f'print(Config.fromfile({str(child)!r}).model.decode_head.type); '
        'assert "mmattn" not in sys.modules'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.stdout == 'PSPHead\n', done.stderr


@pytest.mark.parametrize(
    'text, message',
    [
        ('mmdet::fcos/fcos_r50_fpn_1x_coc.py', 'did you mean fcos_r50'),
        ('no/such.py', 'no/such.py'),
        ('mmrotate::a/b.py', 'mmrotate::'),
    ],
)
def test_unknown_source(text, message):
    with pytest.raises(SwapError, match=message):
        read_source(text)


def test_other_codebases_and_broken_configs(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("default_scope = 'mmagic'\n")
    with pytest.raises(SwapError, match='mmagic'):
        read_source(str(path))
    path.write_text("_base_ = 'mine.py'\n")
    with pytest.raises(UsageError, match='includes itself'):
        read_source(str(path))
    path.write_text('a = b\n')
    with pytest.raises(UsageError, match='NameError'):
        read_source(str(path))


@pytest.mark.parametrize(
    'old, new',
    [
        ('mask-rcnn_r50_fpn_1x_coco', 'mask-rcnn_smt-nano_fpn_1x_coco'),
        ('resnet50_8xb32_in1k', 'smt-nano_8xb32_in1k'),
        ('yolox_s_8xb8-300e_coco', 'yolox_smt-nano_8xb8-300e_coco'),
        ('ssd300_coco', 'ssd300_smt-nano_coco'),
        # Configs with one of our backbones.
        ('faster_smt', 'faster_smt-nano'),
        ('boat-swin-tiny_8xb128_in1k', 'smt-nano_8xb128_in1k'),
        ('fcos_boat-cswin-tiny_fpn_1x_coco', 'fcos_smt-nano_fpn_1x_coco'),
        ('dino_4scale_boat_swin_tiny_12e', 'dino_4scale_smt-nano_12e'),
        ('fcos_sliding_window_nano_coco', 'fcos_smt-nano_coco'),
    ],
)
def test_name_of_the_new_config(old, new):
    source = Source('', Path(f'{old}.py'), 'mmdet', {})
    assert new_name(source, find_family('smt-nano')) == new


def test_name_of_a_new_style_config():
    path = Path('dino_4scale_swin_l_8xb2_12e_coco.py')
    source = Source('', path, 'mmdet', {}, is_new_style=True)
    name = new_name(source, find_family('smt-nano'))
    assert name == 'dino_4scale_smt_nano_8xb2_12e_coco'


def test_class_paths_become_registered_names():
    cfg = dict(
        type='mmdet.models.detectors.fcos.FCOS',
        backbone=dict(type='mmpretrain.models.backbones.VGG'),
        neck=[dict(type='mmpretrain.VGG')],
        optimizer=dict(type='torch.optim.adamw.AdamW'),
        norm=dict(type='torch.nn.modules.batchnorm.BatchNorm2d'),
    )
    assert shorten_types(cfg, 'mmdet') == dict(
        type='FCOS',
        backbone=dict(type='mmpretrain.VGG'),
        neck=[dict(type='mmpretrain.VGG')],
        optimizer=dict(type='AdamW'),
        norm=dict(type='torch.nn.modules.batchnorm.BatchNorm2d'),
    )


def test_families_have_the_names_of_config_files():
    assert find_family('boat-swin-tiny').channels == (96, 192, 384, 768)
    assert find_family('swin-nano').type == 'mmattn.AttentionPyramid'
    with pytest.raises(SwapError, match="'resnet'.*boat-swin-nano"):
        find_family('resnet')
