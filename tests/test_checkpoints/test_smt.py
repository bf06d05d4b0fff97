"""The names of the published SMT files, of all three tasks."""

import pytest
import torch

from mmattn.backbones import SMT
from mmattn.checkpoints import convert, detect_source


@pytest.fixture
def official(golden_case):
    """Tensors of a published file, all names and shapes, one value each."""

    def state(case='smt_tiny_224'):
        entries = golden_case(case)['meta']['state_dict']
        return {
            name: torch.full(shape, float(index))
            for index, (name, shape, _) in enumerate(entries)
        }

    return state


def test_classification_files(official):
    state = official()
    assert detect_source(state) == 'smt'
    converted = convert(state)
    assert (converted.source, converted.family) == ('smt', 'SMT')
    assert converted.arch == 'tiny'
    assert converted.unused == converted.added == []
    SMT(converted.arch).load_state_dict(converted.backbone, strict=True)
    assert converted.head.keys() == {'fc.weight', 'fc.bias'}
    assert converted.head['fc.weight'] is state['head.weight']
    # Only q and kv of the attentions become new tensors.
    results = [*converted.backbone.values(), *converted.head.values()]
    kept = {id(value) for value in results}
    gone = {name for name in state if id(state[name]) not in kept}
    assert gone == {n for n in state if '.attn.q.' in n or '.attn.kv.' in n}
    assert len(results) == len(state) - len(gone) // 2


def test_the_names(official):
    state = official()
    backbone = convert(state).backbone
    pairs = {
        'patch_embed1.conv.0.weight': 'stem.conv.weight',
        'patch_embed1.conv.1.running_var': 'stem.batch_norm.running_var',
        'patch_embed1.conv.3.bias': 'stem.proj.bias',
        'patch_embed1.norm.weight': 'stem.norm.weight',
        'patch_embed3.proj.weight': 'stages.2.downsample.conv.weight',
        'patch_embed3.norm.bias': 'stages.2.downsample.norm.bias',
        'block1.1.attn.local_conv_1.bias': (
            'stages.0.blocks.1.attn.local_convs.bias0'
        ),
        'block1.1.attn.proj0.weight': 'stages.0.blocks.1.attn.expand.weight',
        'block1.1.attn.proj1.weight': 'stages.0.blocks.1.attn.mix.weight',
        'block3.7.attn.local_conv.weight': (
            'stages.2.blocks.7.attn.local_conv.weight'
        ),
        'block4.0.mlp.dwconv.dwconv.weight': (
            'stages.3.blocks.0.mlp.local_conv.weight'
        ),
        'norm1.weight': 'norm0.weight',
        'norm4.bias': 'norm3.bias',
    }
    for theirs, ours in pairs.items():
        assert backbone[ours] is state[theirs]
    q, kv = (state[f'block4.0.attn.{part}.weight'] for part in ('q', 'kv'))
    joined = backbone['stages.3.blocks.0.attn.qkv.weight']
    assert torch.equal(joined, torch.cat((q, kv)))


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'encoder.'])
def test_detection_files_with_their_name_of_the_convolution(official, prefix):
    plain = official()
    state = {
        prefix + name.replace('.attn.local_conv.', '.attn.dw_conv.'): value
        for name, value in plain.items()
        if not name.startswith('head.')
    }
    assert len([name for name in state if 'dw_conv' in name]) == 2 * 5
    others = ['neck.conv.weight', 'roi_head.fc.bias'] if prefix else []
    state |= dict.fromkeys(others, torch.zeros(1))
    converted = convert(state)
    assert (converted.source, converted.arch) == ('smt', 'tiny')
    assert (converted.head, converted.unused) == ({}, others)
    want = convert(plain).backbone
    assert converted.backbone.keys() == want.keys()
    SMT(converted.arch).load_state_dict(converted.backbone, strict=True)


def test_layer_scale_is_part_of_the_arch(official):
    converted = convert(official('smt_tiny_layerscale_64x96'))
    assert converted.arch == dict(SMT.arch_zoo['tiny'], layer_scale=1e-4)
    SMT(converted.arch).load_state_dict(converted.backbone, strict=True)


@pytest.mark.parametrize('arch', SMT.arch_zoo)
def test_archs_of_our_own_files(arch):
    with torch.device('meta'):
        state = SMT(arch).state_dict()
    converted = convert(state)
    assert (converted.source, converted.family) == ('mmattn', 'SMT')
    assert converted.arch == arch
    assert converted.backbone == state


def test_the_depth_of_the_last_stage():
    """The article's small has one block there, the released files two."""
    with torch.device('meta'):
        state = SMT('small').state_dict()
    assert convert(state).arch == 'small'
    state = {k: v for k, v in state.items() if 'stages.3.blocks.1.' not in k}
    arch = convert(state).arch
    assert arch == dict(SMT.arch_zoo['small'], depths=(3, 4, 18, 1))


def test_large_without_layer_scale():
    arch = dict(SMT.arch_zoo['large'], layer_scale=None)
    with torch.device('meta'):
        state = SMT(arch).state_dict()
    assert convert(state).arch == arch


def test_widths_that_no_arch_has():
    with torch.device('meta'):
        state = SMT(dict(SMT.arch_zoo['tiny'], embed_dims=32)).state_dict()
    converted = convert(state)
    assert (converted.family, converted.arch) == ('SMT', None)


@pytest.mark.parametrize(
    'name',
    [
        'patch_embed1.proj.weight',
        'patch_embed2.conv.0.weight',
        'block1.0.attn.sr.weight',
        'block1.0.gamma_3',
        'pos_embed1',
    ],
)
def test_unknown_names(official, name):
    state = official() | {name: torch.zeros(1)}
    with pytest.raises(ValueError, match=name):
        convert(state)
    assert convert(state, strict=False).unused == [name]
