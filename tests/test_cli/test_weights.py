"""A model refuses to read the weights of another one."""

import copy

import pytest
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmattn.cli.weights import refuse_foreign_weights
from mmattn.errors import UsageError


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 1)

    def forward(self, inputs):
        return self.head(self.backbone(inputs))


class Flipped(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


def state(*prefixes):
    whole = Model().state_dict()
    return {k: v for k, v in whole.items() if k.startswith(prefixes)}


def reading(needed):
    model = Model()
    refuse_foreign_weights(model, 'a.pth', needed)
    return model


@pytest.mark.parametrize('needed', [None, 'backbone.', ''])
def test_no_name_fits(needed):
    found = {f'layers.{name}': x for name, x in state('').items()}
    with pytest.raises(
        UsageError,
        match=r'got a\.pth, none of whose names .*convert_checkpoint\.py a\.p',
    ):
        load_state_dict(reading(needed), found)


def test_a_part_starts_a_training_but_is_not_tested():
    for part in ('backbone.0', 'head'):
        load_state_dict(reading(None), state(part))
    with pytest.raises(
        UsageError,
        match=r'a\.pth, which lacks 2 parameters of the backbone '
        r'\(backbone\.1\.bias, backbone\.1\.weight\); give',
    ):
        load_state_dict(reading('backbone.'), state('backbone.0', 'head'))
    load_state_dict(reading('backbone.'), state('backbone'))
    with pytest.raises(
        UsageError,
        match=r'a\.pth, which lacks 2 parameters of the model \(head\.bias',
    ):
        load_state_dict(reading(''), state('backbone'))


def test_a_model_that_renames_what_it_reads():
    model = reading('backbone.')

    def rename(found, *args):
        for name in list(found):
            found[name.replace('old.', '')] = found.pop(name)

    model._register_load_state_dict_pre_hook(rename)
    load_state_dict(model, {f'old.{k}': x for k, x in state('').items()})


def test_a_wrapped_model():
    model = Flipped(Model())
    refuse_foreign_weights(model, 'a.pth')
    load_state_dict(model, state(''))
    with pytest.raises(UsageError, match='none of whose names'):
        load_state_dict(copy.deepcopy(model), {})


def test_nothing_to_read():
    model = Model()
    refuse_foreign_weights(model, None)
    load_state_dict(model, {})
