"""Checkpoints that do not fit the model are rejected."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel, BaseTTAModel
from torch import nn

from mmattn.backbones import BOATSwin
from mmattn.cli.weights import (
    CheckWeights,
    check_weights,
    load_from_verified,
    verify_checkpoint,
)
from mmattn.errors import UsageError


class Model(BaseModel):
    def __init__(self, width=2, depth=1):
        super().__init__()
        layers = [nn.Linear(width, width) for _ in range(depth)]
        self.backbone = nn.Sequential(*layers, nn.BatchNorm2d(width))
        self.head = nn.Linear(2, 1)

    def forward(self, inputs):
        return self.head(self.backbone(inputs))


class Flipped(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


def state(*prefixes, **sizes):
    whole = Model(**sizes).state_dict()
    return {k: v for k, v in whole.items() if k.startswith(prefixes)}


def check(found, whole, **options):
    model = Model()
    check_weights(model, found, 'a.pth', whole, **options)
    return model


@pytest.mark.parametrize('whole', [True, False])
def test_a_fitting_checkpoint_is_loaded(whole):
    found = state('')
    loaded = check(found, whole).state_dict()
    assert all(torch.equal(loaded[name], found[name]) for name in found)


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('partial', [True, False])
def test_no_tensor_fits(whole, partial):
    found = {f'layers.{name}': x for name, x in state('').items()}
    with pytest.raises(UsageError, match='0 of 8 tensors fit.*8 are missing'):
        check(found, whole, partial=partial)


@pytest.mark.parametrize('has_head', [True, False])
def test_what_stays_random_is_logged(has_head, caplog):
    found = state('' if has_head else 'backbone')
    runner = SimpleNamespace(
        model=Model(), logger=logging.getLogger('of a runner')
    )
    hook = CheckWeights('a.pth', whole=False)
    hook.after_load_checkpoint(runner, dict(state_dict=found))
    assert ('6 of 8 tensors fit' in caplog.text) != has_head


def test_missing_tensors():
    part = state('backbone.0', 'head')
    for whole in (True, False):
        with pytest.raises(UsageError, match='4 are missing'):
            check(part, whole)
        check(part, whole, partial=True)


def test_a_missing_head():
    part = state('backbone')
    check(part, whole=False)
    for partial in (True, False):
        with pytest.raises(UsageError, match=r'2 are missing \(head'):
            check(part, whole=True, partial=partial)


@pytest.mark.parametrize('whole', [True, False])
def test_other_shapes(whole):
    wide = state('backbone', width=3) | state('head')
    message = r'2 of 8 tensors fit, 6 have other shapes .*\[3, 3\].*\[2, 2\]'
    with pytest.raises(UsageError, match=message):
        check(wide, whole)
    check(wide, whole, partial=True)


def test_a_head_of_other_classes():
    found = state('backbone') | {'head.weight': torch.ones(5, 2)}
    check(found, whole=False)
    for partial in (True, False):
        with pytest.raises(UsageError, match=r'1 have other shapes \(head'):
            check(found, whole=True, partial=partial)


@pytest.mark.parametrize('whole', [True, False])
def test_unexpected_blocks(whole):
    deep = state('') | {'backbone.7.weight': torch.ones(2, 2)}
    with pytest.raises(UsageError, match='1 are unexpected .*backbone.7'):
        check(deep, whole)
    check(deep, whole, partial=True)
    # Parts that the model does not have at all, such as an auxiliary head.
    check(state('') | {'auxiliary_head.weight': torch.ones(1)}, whole)


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('dtype', [torch.int64, torch.bool, torch.complex64])
def test_nothing_is_cast(whole, dtype):
    found = state('')
    found['backbone.0.weight'] = torch.ones(2, 2, dtype=dtype)
    with pytest.raises(UsageError, match='1 have another kind'):
        check(found, whole)
    found['backbone.0.weight'] = torch.ones(2, 2, dtype=torch.float16)
    check(found, whole)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_nonfinite_weights(value):
    found = state('')
    found['backbone.0.weight'][0, 1] = value
    with pytest.raises(UsageError, match='--allow-nonfinite'):
        check(found, whole=True)
    check(found, whole=True, allow_nonfinite=True)


def test_the_message_says_what_the_checkpoint_is():
    model, other = nn.Module(), nn.Module()
    model.backbone, other.backbone = BOATSwin('nano'), BOATSwin('tiny')
    found = other.state_dict()
    meta = dict(experiment_name='upernet_boat_20260131_120000')
    with pytest.raises(UsageError) as raised:
        check_weights(model, found, 'a.pth', whole=True, meta=meta)
    message = str(raised.value)
    assert "BOATSwin arch='tiny'" in message
    assert "trained with 'upernet_boat'" in message


def test_a_model_that_renames_what_it_reads():
    model = Model()

    def rename(found, *args):
        for name in list(found):
            found[name.replace('old.', '')] = found.pop(name)

    model._register_load_state_dict_pre_hook(rename)
    found = {f'old.{k}': x for k, x in state('').items()}
    check_weights(model, found, 'a.pth', whole=True)


def test_a_wrapped_model():
    model = Flipped(Model())
    check_weights(model, state(''), 'a.pth', whole=True)
    with pytest.raises(UsageError, match='0 of 8'):
        check_weights(model, {}, 'a.pth', whole=True)


def test_a_single_flipped_bit(tmp_path):
    path = tmp_path / 'a.pth'
    saved = state('')
    torch.save(dict(state_dict=saved), path)
    assert verify_checkpoint(str(path)) == str(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[position] ^= 4
        path.write_bytes(changed)
        try:
            loaded = load_from_verified(str(path), 'cpu')['state_dict']
        except UsageError:
            continue
        # Padding and file times have no checksum; nothing else may change.
        assert all(torch.equal(loaded[k], v) for k, v in saved.items())


@pytest.mark.parametrize(
    'content', [None, [1], 3, {'state_dict': [1]}, {0: torch.ones(1)}, {}]
)
def test_content_that_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(UsageError, match=r'a\.pth'):
        verify_checkpoint(str(tmp_path / 'a.pth'))


def test_a_part_of_a_head_that_the_config_leaves_out():
    found = state('') | {'head.mask.weight': torch.ones(1)}
    with pytest.raises(UsageError, match='1 are unexpected'):
        check(found, whole=True)
    check(found, whole=True, partial=True)
