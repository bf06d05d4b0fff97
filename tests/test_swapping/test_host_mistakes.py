"""Mistakes of the codebases: each is there, and is mended."""

import re

import pytest

from mmattn.swapping.checking import CheckFailed, _check, check_model
from mmattn.swapping.edits import apply_edits
from mmattn.swapping.families import find_family
from mmattn.swapping.host_mistakes import MISTAKES, find_mistake
from mmattn.swapping.planning import plan_swap
from mmattn.swapping.refusals import find_network
from mmattn.swapping.samples import SIZE
from mmattn.swapping.source import read_source

CONFIGS = {
    'SSD: loss_cls': 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.'
    'py',
    'LeViT: switch_to_deploy': 'mmpretrain::levit/deploy/levit-128s_8xb256_'
    'in1k.py',
    'UPerNet-R18: size': 'mmseg::upernet/upernet_r18_4xb4-80k_ade20k-512x512.'
    'py',
}


@pytest.mark.parametrize('name', CONFIGS)
def test_the_config_as_it_ships_fails_by_it(name):
    source = read_source(CONFIGS[name])
    network = find_network(source.config)
    mistake = next(item for item in MISTAKES if item.name == name)
    with pytest.raises(CheckFailed, match=mistake.error):
        _check(source.config, source.host, network, SIZE)
    family = find_family('boat-swin-nano')
    edits = plan_swap(source.config, source.host, family)
    swapped = apply_edits(source.config, edits)
    checked = check_model(swapped, source.host, network)
    assert checked.mended == (mistake,)


def test_other_errors_are_of_no_mistake():
    mistake = MISTAKES[0]
    model = dict(type='mmdet.GroundingDINO')
    error = (
        'loss: RuntimeError: mat1 and mat2 shapes cannot be multiplied '
        '(56x1024 and 512x256)'
    )
    assert find_mistake('mmdet', model, error, ()) is mistake
    assert find_mistake('mmdet', model, error, [mistake]) is None
    assert find_mistake('mmseg', model, error, ()) is None
    assert find_mistake('mmdet', dict(type='DINO'), error, ()) is None
    other = error.replace('512x256', '512x128')
    assert find_mistake('mmdet', model, other, ()) is None


def test_names_are_unique_and_patterns_are_patterns():
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)
    for mistake in MISTAKES:
        re.compile(mistake.error), re.compile(mistake.algorithm)
        assert '|' not in mistake.what  # it is a cell of a table
