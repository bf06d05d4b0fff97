"""Swaps of pure Python (new-style) configs."""

import pytest
from mmengine.config import Config

from mmattn.swapping import SwapError, swap_backbone
from mmattn.swapping.edits import plain

BASE = """
from mmengine.config import read_base
from mmpretrain.models import ImageClassifier, LinearClsHead, ResNet
from mmpretrain.models.data_preprocessor import ClsDataPreprocessor
from mmpretrain.models.losses import CrossEntropyLoss
from mmpretrain.models.necks import GlobalAveragePooling
from mmengine.optim import OptimWrapper
from torch.optim import SGD

default_scope = 'mmpretrain'
data_preprocessor = dict(
    type=ClsDataPreprocessor, mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True)
model = dict(
    type=ImageClassifier,
    backbone=dict(type=ResNet, depth=18, out_indices=(3,)),
    neck=[dict(type=GlobalAveragePooling)],
    head=dict(
        type=LinearClsHead, num_classes=10, in_channels=512,
        loss=dict(type=CrossEntropyLoss)))
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.1))
load_from = 'old.pth'
"""
CHILD = """
from mmengine.config import read_base

with read_base():
    from ..base import *
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    child = tmp_path / 'configs' / 'resnet18_in1k.py'
    child.parent.mkdir()
    child.write_text(CHILD)
    return child


def test_new_style_config_is_swapped(source, monkeypatch):
    monkeypatch.chdir(source.parent)
    swapped = swap_backbone(str(source), 'smt-nano', check=True)
    assert swapped.path.name == 'smt_nano_in1k.py'
    assert swapped.has_loss
    old, new = Config.fromfile(source), Config.fromfile(swapped.path)
    assert new.model.type is old.model.type
    assert new.model.backbone == dict(
        type='mmattn.SMT', arch='nano', out_indices=(3,)
    )
    assert new.model.head.in_channels == 192
    assert new.model.head.num_classes == 10
    assert new.optim_wrapper.type is old.optim_wrapper.type
    assert plain(new.optim_wrapper.optimizer) == dict(
        type='AdamW', lr=0.001, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert new.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert new.load_from is None


def test_entries_of_lists_are_edited(tmp_path):
    source, out = tmp_path / 'base.py', tmp_path / 'new.py'
    neck = (
        '[dict(type=LinearNeck, in_channels=512, out_channels=8), '
        'dict(type=GlobalAveragePooling)]'
    )
    text = BASE.replace('[dict(type=GlobalAveragePooling)]', neck)
    names = 'import GlobalAveragePooling'
    text = text.replace(names, f'{names}, LinearNeck')
    source.write_text(text)
    swap_backbone(str(source), 'smt-nano', out=out)
    model = Config.fromfile(out).model
    assert model.neck[0].in_channels == 192
    assert model.neck[0].out_channels == 8


def test_name_that_cannot_be_imported_is_an_error(source):
    renamed = source.rename(source.with_name('resnet-18.py'))
    with pytest.raises(SwapError, match='resnet-18.py'):
        swap_backbone(str(renamed), 'smt-nano', out=source)
    assert not source.exists()
