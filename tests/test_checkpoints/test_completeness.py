"""Incomplete checkpoints are detected."""

import pytest
import torch

from mmattn import backbones
from mmattn.checkpoints import convert, missing_names

CASES = ['boat_swin_tiny_224', 'swin_tiny_224', 'cswin_tiny_224']
CASES += ['boat_cswin_tiny_224', 'smt_tiny_224']
TABLE = 'attn.relative_position_bias_table'


@pytest.fixture(scope='module')
def published():
    """Names and shapes of published checkpoints."""
    import golden

    def state(case):
        path = golden.__file__.replace('golden.py', f'{case}.npz')
        entries = golden.load_case(path)['meta']['state_dict']
        return {
            name: torch.empty(shape, device='meta')
            for name, shape, _ in entries
        }

    return state


@pytest.mark.parametrize('case', CASES)
def test_published_checkpoints_are_complete(published, case):
    assert missing_names(convert(published(case))) == []


@pytest.mark.parametrize('family', ['BOATSwin', 'SMT', 'PerspectiveEncoder'])
def test_our_checkpoints_are_complete(family):
    model = getattr(backbones, family)(arch='nano')
    assert missing_names(convert(model.state_dict())) == []


@pytest.mark.parametrize(
    'gone, missing',
    [
        ('layers.1.blocks.0.mlp.fc1', ['stages.1.blocks.0.mlp.fc1.bias']),
        ('layers.2.', [f'stages.2.blocks.0.{TABLE}']),
        ('layers.3.blocks.0.', [f'stages.3.blocks.0.{TABLE}']),
        ('layers.0.downsample.', ['stages.1.downsample.norm.bias']),
        (('layers.2', 'layers.3', 'norm.', 'head.'), ['stages.2.blocks']),
        (('layers.3', 'norm.'), ['norm2.bias', 'stages.3.blocks']),
        ('norm.', ['norm3.bias', 'norm3.weight']),
        ('patch_embed.norm', ['stem.norm.bias', 'stem.norm.weight']),
    ],
)
@pytest.mark.parametrize('case', CASES[:2])
def test_parts_of_a_swin(published, case, gone, missing):
    state = published(case)
    part = {k: v for k, v in state.items() if not k.startswith(gone)}
    assert len(part) < len(state)
    found = missing_names(convert(part))
    assert set(missing) <= set(found), found


def test_a_bias_that_no_block_has_is_not_missing(published):
    state = published('swin_tiny_224')
    part = {k: v for k, v in state.items() if not k.endswith('qkv.bias')}
    assert missing_names(convert(part)) == []


def test_an_unknown_arch_misses_nothing():
    state = {
        'stem.proj.weight': torch.zeros(8, 3, 4, 4),
        'stages.0.blocks.0.attn.q.weight': torch.zeros(8, 8),
    }
    assert missing_names(convert(state)) == []
