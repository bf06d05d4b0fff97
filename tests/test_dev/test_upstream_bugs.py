"""Upstream bugs: each exists and has a workaround."""

import re

import pytest
from coverage_case import check_model
from upstream_bugs import BUGS, find_bug

from mmattn.swapping.checking import CheckFailed, run_check
from mmattn.swapping.edits import apply_edits
from mmattn.swapping.families import find_family
from mmattn.swapping.planning import plan_swap
from mmattn.swapping.samples import SIZE
from mmattn.swapping.source import read_source
from mmattn.swapping.unsupported import find_network

CONFIGS = {
    'SSD: loss_cls': 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.'
    'py',
    'LeViT: switch_to_deploy': 'mmpretrain::levit/deploy/levit-128s_8xb256_'
    'in1k.py',
    'UPerNet-R18: size': 'mmseg::upernet/upernet_r18_4xb4-80k_ade20k-512x512.'
    'py',
}


@pytest.mark.parametrize('name', CONFIGS)
def test_the_shipped_config_fails_and_its_swap_passes(name):
    source = read_source(CONFIGS[name])
    network = find_network(source.config)
    bug = next(item for item in BUGS if item.name == name)
    with pytest.raises(CheckFailed, match=bug.error):
        run_check(source.config, source.codebase, network, SIZE)
    family = find_family('boat-swin-nano')
    edits = plan_swap(source.config, source.codebase, family)
    swapped = apply_edits(source.config, edits)
    assert check_model(swapped, source.codebase)['bugs'] == [name]


def test_only_the_known_error_matches():
    bug = BUGS[0]
    model = dict(type='mmdet.GroundingDINO')
    error = (
        'loss: RuntimeError: mat1 and mat2 shapes cannot be multiplied '
        '(56x1024 and 512x256)'
    )
    assert find_bug('mmdet', model, error, ()) is bug
    assert find_bug('mmdet', model, error, [bug]) is None
    assert find_bug('mmseg', model, error, ()) is None
    assert find_bug('mmdet', dict(type='DINO'), error, ()) is None
    other = error.replace('512x256', '512x128')
    assert find_bug('mmdet', model, other, ()) is None


def test_names_are_unique_and_patterns_compile():
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    for bug in BUGS:
        re.compile(bug.error), re.compile(bug.algorithm)
        assert '|' not in bug.description  # a table cell
