"""Published CSWin and BOAT-CSWin checkpoints."""

import re

import pytest
import torch

from mmattn.backbones import BOATCSWin, CSWin
from mmattn.checkpoints import convert, detect_source, load_file

CASES = {
    'cswin': ('cswin_tiny_224', CSWin),
    'boat_cswin': ('boat_cswin_tiny_224', BOATCSWin),
}
DENSE = 'cswin_dense_tiny_96x160'
FRESH = [f'norm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')]


@pytest.fixture
def official(golden_case):
    """A published checkpoint with one value per tensor."""

    def state(case):
        entries = golden_case(case)['meta']['state_dict']
        return {
            name: torch.full(shape, float(index))
            for index, (name, shape, _) in enumerate(entries)
        }

    return state


def on_meta(family, arch, **kwargs):
    with torch.device('meta'):
        return family(arch, **kwargs)


def numbers(state):
    return sum(value.numel() for value in state.values())


@pytest.mark.parametrize('source', CASES)
def test_classification_files(official, source):
    case, family = CASES[source]
    state = official(case)
    assert detect_source(state) == source
    converted = convert(state)
    assert converted.source == source
    assert (converted.family, converted.arch) == (family.__name__, 'tiny')
    assert converted.unused == []
    assert converted.added == FRESH
    fresh = {name: converted.backbone[name] for name in FRESH}
    # No values are lost or added.
    assert numbers(converted.backbone) + numbers(converted.head) == (
        numbers(state) + numbers(fresh)
    )
    model = on_meta(family, converted.arch)
    model.load_state_dict(converted.backbone, strict=True, assign=True)
    assert converted.head.keys() == {'fc.weight', 'fc.bias'}
    assert converted.head['fc.weight'] is state['head.weight']


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_dense_files(official, prefix):
    state = {prefix + k: v for k, v in official(DENSE).items()}
    others = ['decode_head.conv.weight'] if prefix else []
    state |= dict.fromkeys(others, torch.zeros(1))
    assert detect_source(state) == 'cswin'
    converted = convert(state)
    assert (converted.family, converted.arch) == ('CSWin', 'tiny')
    assert converted.unused == others
    assert converted.added == []
    assert converted.head == {}
    for i in range(4):
        ours, theirs = f'norm{i}.bias', f'{prefix}norm{i + 1}.bias'
        assert converted.backbone[ours] is state[theirs]
    model = on_meta(CSWin, 'tiny')
    model.load_state_dict(converted.backbone, strict=True, assign=True)


def test_names(official):
    state = official('boat_cswin_tiny_224')
    backbone = convert(state).backbone
    pairs = {
        'stage1_conv_embed.0.weight': 'stem.proj.weight',
        'stage1_conv_embed.2.bias': 'stem.norm.bias',
        'merge2.conv.weight': 'stages.2.downsample.conv.weight',
        'merge3.norm.bias': 'stages.3.downsample.norm.bias',
        'stage3.20.qkv.bias': 'stages.2.blocks.20.attn.qkv.bias',
        'stage3.20.norm2.bias': 'stages.2.blocks.20.norm2.bias',
        'stage4.0.attns.0.get_v.bias': ('stages.3.blocks.0.attn.lepe.bias'),
        'stage1.0.norm3.weight': 'stages.0.blocks.0.feature_norm.weight',
        'stage1.0.content_attn.get_v.bias': (
            'stages.0.blocks.0.feature_attn.lepe.bias'
        ),
        'norm.bias': 'norm3.bias',
    }
    for theirs, ours in pairs.items():
        assert backbone[ours] is state[theirs]


def test_vertical_stripes_take_the_first_channels(official):
    state = official('cswin_tiny_224')
    joined = convert(state).backbone['stages.1.blocks.1.attn.lepe.bias']
    halves = joined.chunk(2)
    assert torch.equal(halves[0], state['stage2.1.attns.0.get_v.bias'])
    assert torch.equal(halves[1], state['stage2.1.attns.1.get_v.bias'])


@pytest.mark.parametrize(
    'name',
    [
        'stage1.0.attns.2.get_v.weight',
        'stage1.0.content_attn.qkv.bias',
        'stage1.0.mlp.fc3.weight',
        'merge1.extra.weight',
        'norm.running.mean',
        'stage10.norm1.weight',
    ],
)
def test_unknown_names(official, name):
    state = official('cswin_tiny_224') | {name: torch.zeros(1)}
    with pytest.raises(ValueError, match=re.escape(name)):
        convert(state, source='cswin')
    assert convert(state, 'cswin', strict=False).unused == [name]


def test_half_of_a_pair_of_convolutions(official):
    state = official('cswin_tiny_224')
    del state['stage1.0.attns.0.get_v.weight']
    with pytest.raises(ValueError, match=r'stage1\.0\.attns\.1\.get_v'):
        convert(state)


@pytest.mark.parametrize(
    'family, arch',
    [
        (family, arch)
        for family in (CSWin, BOATCSWin)
        for arch in family.arch_zoo
    ],
    ids=lambda value: getattr(value, '__name__', value),
)
def test_arch_names_are_detected(family, arch):
    converted = convert(on_meta(family, arch).state_dict())
    assert converted.source == 'mmattn'
    assert (converted.family, converted.arch) == (family.__name__, arch)


def test_the_number_of_heads_is_unknown():
    arch = dict(embed_dims=32, depths=(1, 1), num_heads=(2, 4))
    model = CSWin(arch, out_indices=(0, 1), stripe_widths=(1, None))
    converted = convert(model.state_dict())
    assert (converted.family, converted.arch) == ('CSWin', None)


def test_cswin_weights_start_a_boat_cswin(official):
    model = on_meta(BOATCSWin, 'tiny')
    missing, extra = model.load_state_dict(
        convert(official('cswin_tiny_224')).backbone, strict=False, assign=True
    )
    assert extra == []
    assert missing
    assert all('.feature_' in name for name in missing)


def test_averaged_weights_of_a_training_checkpoint(official, tmp_path):
    averaged = official('cswin_tiny_224')
    last = {name: value + 1 for name, value in averaged.items()}
    torch.save(
        dict(epoch=309, state_dict=last, state_dict_ema=averaged),
        tmp_path / 'cswin.pth',
    )
    backbone = convert(load_file(tmp_path / 'cswin.pth')).backbone
    assert torch.equal(
        backbone['stem.proj.weight'], averaged['stage1_conv_embed.0.weight']
    )
