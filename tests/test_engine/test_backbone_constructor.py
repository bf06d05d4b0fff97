"""Weight decay of the parameter groups of mmattn backbones."""

import pytest
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmattn.backbones import SMT, BOATSwin, CSWin

CONSTRUCTOR = 'mmattn.BackboneOptimWrapperConstructor'
LAYER_DECAY = 'mmattn.LayerDecayOptimWrapperConstructor'


class Model(nn.Module):
    """A detector-like model; ``place`` holds it one level deeper."""

    def __init__(self, backbone, place=None):
        super().__init__()
        owner = nn.Module()
        owner.backbone = backbone
        if place:
            setattr(self, place, owner)
        else:
            self.backbone = backbone
        self.norm = nn.LayerNorm(4)
        self.sampling_offsets = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)


def groups(model, type=CONSTRUCTOR, **options):
    """Learning rate and weight decay of each parameter, as multipliers."""
    optimizer = dict(type='AdamW', lr=1.0, weight_decay=1.0)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=type,
            optim_wrapper_cfg=dict(optimizer=optimizer),
            paramwise_cfg=options or None,
        )
    )
    found = {
        parameter: (group['lr'], group['weight_decay'])
        for group in constructor(model).optimizer.param_groups
        for parameter in group['params']
    }
    return {name: found[p] for name, p in model.named_parameters()}


def is_exempt(name):
    return 'norm' in name or name.endswith('relative_position_bias_table')


@pytest.mark.parametrize('place', [None, 'detector', 'student'])
@pytest.mark.parametrize('family', [BOATSwin, CSWin, SMT])
def test_norms_and_tables_of_the_backbone_do_not_decay(family, place):
    found = groups(Model(family('nano'), place))
    inside = {k: v for k, v in found.items() if 'backbone.' in k}
    assert len(inside) > 50
    for name, group in inside.items():
        assert group == (1.0, 0.0 if is_exempt(name) else 1.0), name
    assert {v for k, v in found.items() if k not in inside} == {(1.0, 1.0)}


def test_rules_of_the_config_are_kept():
    """The optimizer of DINO: a key for the whole backbone and others."""
    found = groups(
        Model(BOATSwin('nano')),
        custom_keys=dict(
            backbone=dict(lr_mult=0.1),
            norm=dict(decay_mult=0.5),
            sampling_offsets=dict(lr_mult=0.1),
        ),
    )
    for name, group in found.items():
        if name.startswith('backbone.'):
            assert group == (0.1, 0.0 if is_exempt(name) else 1.0), name
    assert found['norm.weight'] == (1.0, 0.5)
    assert found['sampling_offsets.weight'] == (0.1, 1.0)
    assert found['head.weight'] == (1.0, 1.0)


def test_layer_decay_keeps_norms_and_tables_from_decay():
    model = Model(BOATSwin('nano'), 'detector')
    found = groups(model, LAYER_DECAY, layer_decay_rate=0.5)
    backbone = model.detector.backbone
    for name, (rate, decay) in found.items():
        if not name.startswith('detector.backbone.'):
            assert (rate, decay) == (1.0, 1.0), name
            continue
        depth, count = backbone.get_layer_depth(name, 'detector.backbone.')
        assert rate == 0.5 ** (count - 1 - depth), name
        assert decay == (0.0 if is_exempt(name) else 1.0), name


def test_shared_modules_have_one_group():
    model = Model(BOATSwin('nano'))
    model.tied = model.head
    assert groups(model)['head.weight'] == (1.0, 1.0)


def test_frozen_parameters_have_no_group():
    model = Model(BOATSwin('nano', frozen_stages=0))
    with pytest.raises(KeyError):
        groups(model)
