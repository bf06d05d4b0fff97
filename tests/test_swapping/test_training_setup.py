"""Preprocessing, weights and the optimizer of a swapped config."""

from mmattn.swapping.families import find_family
from mmattn.swapping.training_setup import (
    MEAN,
    STD,
    edit_optimizer,
    edit_preprocessor,
    edit_weights,
)

TABLE = 'relative_position_bias_table'


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
    return by_path(edit_optimizer(config, find_family(backbone), codebase))


def test_sgd_becomes_adamw_for_the_batch_of_the_config():
    config = dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.02)),
        auto_scale_lr=dict(base_batch_size=32),
    )
    edits = optimizer(config)
    assert edits['optim_wrapper.optimizer'] == dict(
        type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    still = dict(decay_mult=0.0)
    assert edits['optim_wrapper.paramwise_cfg'] == dict(
        custom_keys=dict(norm=still, relative_position_bias_table=still)
    )


def test_adamw_and_its_keys_stay():
    keys = dict(norm=dict(decay_mult=0.5), query=dict(lr_mult=0.1))
    config = dict(
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-3),
            paramwise_cfg=dict(custom_keys=keys),
        )
    )
    # SMT has no position tables, and the rule of the config is kept.
    assert optimizer(config, backbone='smt-nano') == {}


def test_constructor_that_knows_other_layers_is_replaced():
    config = dict(
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-3),
            constructor='LearningRateDecayOptimizerConstructor',
            paramwise_cfg=dict(decay_rate=0.7, num_layers=12),
        )
    )
    edits = optimizer(config, backbone='smt-nano')
    assert edits['optim_wrapper.constructor'] == (
        'mmattn.LayerDecayOptimWrapperConstructor'
    )
    assert edits['optim_wrapper.paramwise_cfg'] == dict(
        layer_decay_rate=0.7, custom_keys=dict(norm=dict(decay_mult=0.0))
    )


def test_a_key_of_the_whole_backbone_does_not_hide_the_norms():
    config = dict(
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
        )
    )
    edits = optimizer(config)
    start = 'optim_wrapper.paramwise_cfg.custom_keys.backbone'
    for name in ('norm', 'stages.0.blocks.0.norm', 'stages.1.downsample.norm'):
        assert edits[f'{start}.{name}'] == dict(lr_mult=0.1, decay_mult=0.0)
    # The key of the tables is longer and so overrides the backbone's.
    tables = {key: value for key, value in edits.items() if TABLE in key}
    assert tables == {
        f'{start.removesuffix("backbone")}{TABLE}': dict(
            lr_mult=0.1, decay_mult=0.0
        )
    }
    config['optim_wrapper']['optimizer']['weight_decay'] = 1e-4
    assert f'{start}.norm' not in optimizer(config)
