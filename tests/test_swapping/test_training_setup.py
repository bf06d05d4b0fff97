"""Preprocessing, weights and the optimizer of a swapped config."""

import pytest

from mmattn.swapping.families import find_family
from mmattn.swapping.training_setup import (
    MEAN,
    STD,
    edit_optimizer,
    edit_preprocessor,
    edit_weights,
)


def by_path(edits):
    return {'.'.join(map(str, e.path)): e.value for e in edits}


def test_caffe_pixels_become_rgb():
    cfg = dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
    )
    edits = edit_preprocessor(dict(model=dict(data_preprocessor=cfg)))
    assert by_path(edits) == {
        'model.data_preprocessor.mean': MEAN,
        'model.data_preprocessor.std': STD,
        'model.data_preprocessor.bgr_to_rgb': True,
    }


def test_pixels_of_classifiers_and_of_branches():
    cfg = dict(num_classes=10, mean=MEAN, std=STD, to_rgb=False)
    edits = edit_preprocessor(dict(model={}, data_preprocessor=cfg))
    assert by_path(edits) == {'data_preprocessor.to_rgb': True}
    inner = dict(type='DetDataPreprocessor', mean=MEAN, std=STD)
    outer = dict(type='MultiBranchDataPreprocessor', data_preprocessor=inner)
    edits = edit_preprocessor(dict(model=dict(data_preprocessor=outer)))
    assert by_path(edits) == {
        'model.data_preprocessor.data_preprocessor.bgr_to_rgb': True
    }


@pytest.mark.parametrize(
    'mean, in_channels', [(None, 3), (None, 4), ([0.5], 1), (MEAN, 6)]
)
def test_pixels_of_other_images_are_kept(mean, in_channels):
    cfg = dict(type='SegDataPreProcessor', mean=mean, std=mean)
    config = dict(model=dict(data_preprocessor=cfg))
    assert edit_preprocessor(config, in_channels) == []


def test_weights_of_the_old_backbone_are_dropped():
    detector = dict(init_cfg=dict(type='Pretrained', checkpoint='a.pth'))
    config = dict(
        model=dict(pretrained='torchvision://r50', detector=detector),
        load_from='https://b.pth',
    )
    assert by_path(edit_weights(config, ('model', 'detector'))) == {
        'model.pretrained': None,
        'model.detector.init_cfg': None,
        'load_from': None,
    }


def optimizer(config, codebase='mmdet', backbone='boat-swin-nano'):
    edits = edit_optimizer(config, find_family(backbone), codebase)
    return {'.'.join(e.path[1:]): e.value for e in edits}


CONSTRUCTOR = 'mmattn.BackboneOptimWrapperConstructor'
LAYER_DECAY = 'mmattn.LayerDecayOptimWrapperConstructor'


def wrapper(constructor=None, **options):
    return dict(
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            constructor=constructor,
            paramwise_cfg=options,
        )
    )


def test_sgd_becomes_adamw_for_the_batch_of_the_config():
    config = dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.02)),
        auto_scale_lr=dict(base_batch_size=32),
    )
    assert optimizer(config) == dict(
        optimizer=dict(
            type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05
        ),
        constructor=CONSTRUCTOR,
    )


@pytest.mark.parametrize(
    'keys',
    [
        dict(norm=dict(decay_mult=0.5), query=dict(lr_mult=0.1)),
        dict(backbone=dict(lr_mult=0.1), norm=dict(decay_mult=0.0)),
        dict(head=dict(lr_mult=10.0)),
    ],
)
def test_adamw_and_its_keys_are_kept(keys):
    assert optimizer(wrapper(custom_keys=keys)) == dict(
        constructor=CONSTRUCTOR
    )


@pytest.mark.parametrize(
    'options',
    [
        dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
        dict(custom_keys=dict(bias=dict(lr_mult=0.024, decay_mult=0))),
    ],
)
def test_rates_of_biases_do_not_apply_to_the_backbone(options):
    assert optimizer(wrapper(**options)) == {
        'constructor': CONSTRUCTOR,
        'paramwise_cfg.custom_keys.backbone': dict(lr_mult=1.0),
    }


def test_constructors_that_know_other_layers_are_replaced():
    config = wrapper(
        'LearningRateDecayOptimizerConstructor', decay_rate=0.7, num_layers=12
    )
    assert optimizer(config, backbone='smt-nano') == dict(
        constructor=LAYER_DECAY,
        paramwise_cfg=dict(
            layer_decay_rate=0.7,
            norm_decay_mult=0.0,
            bias_decay_mult=0.0,
            flat_decay_mult=0.0,
            bypass_duplicate=True,
        ),
    )
    name = 'mmpretrain.LearningRateDecayOptimWrapperConstructor'
    config = wrapper(name, layer_decay_rate=0.65)
    assert optimizer(config, 'mmpretrain') == dict(constructor=LAYER_DECAY)


def test_an_unknown_constructor_is_kept():
    assert optimizer(wrapper('MyConstructor')) == {}


def test_the_lowest_learning_rate_scales_with_the_learning_rate():
    config = dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1),
            dict(type='PolyLR', eta_min=1e-4, power=0.9),
            dict(type='PolyLR', eta_min=0.0),
        ],
    )
    edits = by_path(
        edit_optimizer(config, find_family('smt-nano'), codebase='mmseg')
    )
    assert edits['optim_wrapper.optimizer']['lr'] == 6e-5
    assert edits['param_scheduler.1.eta_min'] == 6e-7
    assert not {'param_scheduler.0.eta_min', 'param_scheduler.2.eta_min'} & {
        *edits
    }
