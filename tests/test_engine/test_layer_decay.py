"""The learning rate of each parameter group, in models of the hosts."""

import pytest
from mmengine.config import Config
from mmengine.registry import (
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    DefaultScope,
)
from torch import nn

from mmattn.registry import MODELS as OURS
from mmattn.zoo import find_model

NAME = 'mmattn.LayerDecayOptimWrapperConstructor'
LR, RATE, DECAY = 1e-3, 0.5, 0.05


def rates(model, scope='mmengine', **more):
    """Learning rate and weight decay of each parameter, by name."""
    wrapper = dict(
        optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY),
    )
    with DefaultScope.overwrite_default_scope(scope):
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(
                type=NAME,
                optim_wrapper_cfg=wrapper,
                paramwise_cfg=dict(layer_decay_rate=RATE) | more,
            )
        )
        optimizer = constructor(model).optimizer
    groups = {
        parameter: (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    return {name: groups[p] for name, p in model.named_parameters()}


# Of 2, 2, 2 and 2 blocks: depths 0 (stem), 1 to 8, and 9 for the rest.
DEPTHS = {
    'backbone.stem.proj.weight': 0,
    'backbone.stages.0.blocks.1.mlp.fc1.weight': 2,
    'backbone.stages.1.downsample.reduction.weight': 3,
    'backbone.stages.1.blocks.0.attn.qkv.weight': 3,
    'backbone.stages.2.blocks.1.feature_attn.proj.bias': 6,
    'backbone.stages.3.blocks.1.norm1.weight': 8,
    'backbone.norm3.weight': 9,
}


@pytest.mark.parametrize(
    'name',
    [
        'boat-swin-nano_1xb32-25e_digits',
        'mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits',
        'upernet_boat-swin-nano_1xb8-8e_digits',
    ],
)
def test_rates_fall_towards_the_stem_in_each_host(name):
    cfg = Config.fromfile(find_model(name).config)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    found = rates(
        model, cfg.default_scope, norm_decay_mult=0.0, bias_lr_mult=2.0
    )
    for parameter, depth in DEPTHS.items():
        bias = 2.0 if parameter.endswith('bias') else 1.0
        assert found[parameter][0] == pytest.approx(
            LR * RATE ** (9 - depth) * bias
        ), parameter
    for parameter, (lr, _) in found.items():
        if not parameter.startswith('backbone.'):
            assert lr in (LR, 2 * LR), parameter
    assert found['backbone.stages.0.blocks.0.norm1.weight'][1] == 0
    assert found['backbone.stages.0.blocks.0.mlp.fc1.weight'][1] == DECAY


class Model(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)


def archs():
    OURS.get('mmattn.BOATSwin')  # imports them all
    return [
        (cls, arch)
        for cls in OURS.module_dict.values()
        for arch in getattr(cls, 'arch_zoo', {})
        if arch.endswith('nano')
    ]


@pytest.mark.parametrize(
    'cls, arch', archs(), ids=lambda value: getattr(value, '__name__', value)
)
def test_every_backbone_of_ours_has_rates(cls, arch):
    backbone = cls(arch=arch)
    found = rates(Model(backbone))
    for name, (lr, _) in found.items():
        if not name.startswith('backbone.'):
            assert lr == LR
            continue
        depth, count = backbone.get_layer_depth(name, 'backbone.')
        assert lr == pytest.approx(LR * RATE ** (count - 1 - depth)), name
    # The depths are all taken, from the first layer to the heads.
    assert len({lr for lr, _ in found.values()}) == count


def test_a_rate_by_name_is_scaled_too():
    model = Model(OURS.get('BOATSwin')(arch='nano'))
    found = rates(model, custom_keys={'stem': dict(lr_mult=0.1)})
    stem = found['backbone.stem.proj.weight'][0]
    assert stem == pytest.approx(0.1 * LR * RATE**9)


def test_frozen_parameters_have_no_group():
    model = Model(OURS.get('BOATSwin')(arch='nano', frozen_stages=0))
    with pytest.raises(KeyError):
        rates(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    wrapper = dict(optimizer=dict(type='SGD', lr=LR))
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(NAME)(
        wrapper, dict(layer_decay_rate=0.9)
    )
    groups = constructor(model).optimizer.param_groups
    assert len(groups) == len(parameters)


@pytest.mark.parametrize('rate', [None, 0, 1.5, 'x'])
def test_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=f'layer_decay_rate .{rate!r}'):
        OPTIM_WRAPPER_CONSTRUCTORS.get(NAME)(
            dict(optimizer=dict(type='SGD', lr=LR)),
            dict(layer_decay_rate=rate),
        )


def test_an_optimizer_without_a_rate():
    with pytest.raises(ValueError, match=r"lr .*\['type'\]"):
        OPTIM_WRAPPER_CONSTRUCTORS.get(NAME)(
            dict(optimizer=dict(type='AdamW')), dict(layer_decay_rate=0.5)
        )


def test_a_backbone_that_knows_no_depths():
    model = Model(nn.Conv2d(1, 1, 1))
    with pytest.raises(TypeError, match='get_layer_depth.*Conv2d'):
        rates(model)
