"""The check of the optimizers of swapped configs."""

import pytest
from optimizer_check import describe_optimizer

from mmattn.swapping import find_family
from mmattn.swapping.edits import apply_edits
from mmattn.swapping.planning import plan_swap
from mmattn.swapping.source import read_source

DETR = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'


def describe(name, change=None):
    source = read_source(name)
    family = find_family('boat-swin-nano')
    edits = plan_swap(source.config, source.codebase, family)
    config = apply_edits(source.config, edits)
    if change:
        change(config['optim_wrapper'])
    return describe_optimizer(source.config, config, source.codebase)


@pytest.mark.parametrize(
    'name, layer_decay, exempt_biases',
    [
        (DETR, False, False),
        ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', False, True),
        (
            'mmseg::convnext/'
            'convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
            True,
            True,
        ),
        (
            'mmpretrain::barlowtwins/'
            'barlowtwins_resnet50_8xb256-coslr-300e_in1k.py',
            False,
            True,
        ),
    ],
)
def test_swapped_optimizers_are_right(name, layer_decay, exempt_biases):
    assert describe(name) == dict(
        optimizer='right',
        optimizer_detail='',
        layer_decay=layer_decay,
        exempt_biases=exempt_biases,
    )


def short_keys(wrapper):
    """As a swap without a constructor could write."""
    del wrapper['constructor']
    for key in ('norm', 'relative_position_bias_table'):
        wrapper['paramwise_cfg']['custom_keys'][key] = dict(decay_mult=0.0)


def no_constructor(wrapper):
    del wrapper['constructor']


def no_keys(wrapper):
    del wrapper['paramwise_cfg']['custom_keys']


def too_many_exempt(wrapper):
    rule = dict(lr_mult=0.1, decay_mult=0.0)
    wrapper['paramwise_cfg']['custom_keys']['backbone.stages.0'] = rule


@pytest.mark.parametrize(
    'change, word',
    [
        (short_keys, 'in the source'),
        (no_constructor, ' decays'),
        (no_keys, 'in the source'),
        (too_many_exempt, 'does not decay'),
    ],
)
def test_wrong_groups_are_found(change, word):
    found = describe(DETR, change)
    assert found['optimizer'] == 'wrong'
    assert word in found['optimizer_detail']


def test_configs_without_an_optimizer():
    name = 'mmpretrain::clip/vit-base-p16_pt-64xb64_in1k-448px.py'
    source = read_source(name)
    source.config.pop('optim_wrapper', None)
    found = describe_optimizer(source.config, source.config, 'mmpretrain')
    assert found == dict(optimizer='none')
