"""Foreign names into ours: every tensor finds its place, or is named."""

import numpy as np
import pytest
import torch

from mmattn.backbones import AttentionPyramid, BOATSwin
from mmattn.checkpoints import (
    UnknownFormat,
    UnknownKeys,
    convert,
    detect_source,
    source_names,
)

CASES = {
    'boat_swin': ('boat_swin_tiny_224', BOATSwin, 'tiny'),
    'swin': ('swin_tiny_224', AttentionPyramid, 'swin-tiny'),
}
COMPUTED = ('relative_position_index', 'attn_mask')
FRESH = [f'norm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')]


@pytest.fixture
def official(golden_case):
    """Tensors of a published file, all names and shapes, one value each."""

    def state(source):
        entries = golden_case(CASES[source][0])['meta']['state_dict']
        return {
            name: torch.full(shape, float(index))
            for index, (name, shape, _) in enumerate(entries)
        }

    return state


def kept(state):
    return {
        name: value
        for name, value in state.items()
        if name.rpartition('.')[2] not in COMPUTED
    }


def mmpretrain_swin(**kwargs):
    """mmpretrain's own Swin in float64, random biases and norms included."""
    swin = pytest.importorskip('mmpretrain.models.backbones.swin_transformer')
    model = swin.SwinTransformer(**kwargs).double()
    for param in model.parameters():
        param.data = torch.randn_like(param) / param[0].numel() ** 0.5
    model.eval()
    return model


@pytest.mark.parametrize('source', CASES)
def test_official_classification_files(official, source):
    state = official(source)
    assert any(name.endswith(COMPUTED) for name in state)
    assert detect_source(state) == source
    converted = convert(state)
    _, family, arch = CASES[source]
    assert converted.source == source
    assert converted.family == family.__name__
    assert converted.arch == arch
    assert converted.unused == []
    assert converted.added == FRESH
    # Every tensor of the file is in the result exactly once.
    results = {**converted.backbone, **converted.head}
    found = [v for k, v in results.items() if k not in FRESH]
    assert {id(v) for v in found} == {id(v) for v in kept(state).values()}
    assert len(found) == len(kept(state))
    for name in FRESH:
        value = 1.0 if name.endswith('weight') else 0.0
        assert (converted.backbone[name] == value).all()
    model = family(arch=converted.arch)
    model.load_state_dict(converted.backbone, strict=True)
    assert converted.head.keys() == {'fc.weight', 'fc.bias'}
    assert converted.head['fc.weight'].shape == (1000, 768)


def test_the_names_of_boat_swin(official):
    state = official('boat_swin')
    backbone = convert(state).backbone
    pairs = {
        'patch_embed.proj.weight': 'stem.proj.weight',
        'patch_embed.norm.bias': 'stem.norm.bias',
        'layers.1.downsample.reduction.weight': (
            'stages.2.downsample.reduction.weight'
        ),
        'layers.0.blocks.1.norm4.weight': (
            'stages.0.blocks.1.feature_norm.weight'
        ),
        'layers.2.blocks.5.attnC.get_v.bias': (
            'stages.2.blocks.5.feature_attn.lepe.bias'
        ),
        'layers.3.blocks.0.attn.relative_position_bias_table': (
            'stages.3.blocks.0.attn.relative_position_bias_table'
        ),
        'norm.bias': 'norm3.bias',
    }
    for theirs, ours in pairs.items():
        assert backbone[ours] is state[theirs]


@pytest.mark.parametrize('source', CASES)
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'encoder.'])
def test_official_detection_files(official, source, prefix):
    state = official(source)
    norms = {
        f'norm{i}.{leaf}': torch.full((96 * 2**i,), 7.0)
        for i in range(4)
        for leaf in ('weight', 'bias')
    }
    state = {k: v for k, v in state.items() if k[:4] not in ('norm', 'head')}
    state = {prefix + k: v for k, v in (state | norms).items()}
    others = ['neck.conv.weight', 'roi_head.fc.bias'] if prefix else []
    state |= dict.fromkeys(others, torch.zeros(1))
    assert detect_source(state) == source
    converted = convert(state)
    assert converted.added == []
    assert converted.head == {}
    assert converted.unused == others
    for name, value in norms.items():
        assert converted.backbone[name] is state[prefix + name], value
    CASES[source][1](arch=converted.arch).load_state_dict(converted.backbone)


@pytest.mark.parametrize(
    'window, shape', [(7, (1, 3, 224, 224)), (4, (2, 3, 128, 256))]
)
def test_swin_of_openmmlab_computes_the_same(window, shape):
    arch = dict(embed_dims=24, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8])
    theirs = mmpretrain_swin(
        arch=arch,
        img_size=shape[-2:],
        out_indices=(0, 1, 2, 3),
        stage_cfgs=dict(block_cfgs=dict(window_size=window)),
    )
    state = {f'backbone.{k}': v for k, v in theirs.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(5, 192)
    converted = convert(state)
    assert converted.source == 'openmmlab_swin'
    assert converted.family == 'AttentionPyramid'
    if window == 7:
        assert converted.arch == 'swin-nano'
    else:
        windows = converted.arch['attentions'][0]
        assert [cfg['window_size'] for cfg in windows] == [4, 4]
    assert list(converted.head) == ['fc.weight']
    assert converted.unused == converted.added == []
    ours = AttentionPyramid(arch=converted.arch).double().eval()
    ours.load_state_dict(converted.backbone, strict=True)
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        for mine, want in zip(ours(x), theirs(x), strict=True):
            assert (mine - want).abs().max() < 1e-12 * want.abs().max()


def test_our_files_come_back_unchanged():
    state = BOATSwin(arch='nano').state_dict()
    converted = convert(state)
    assert converted.source == detect_source(state) == 'mmattn'
    assert (converted.family, converted.arch) == ('BOATSwin', 'nano')
    assert converted.backbone.keys() == state.keys()
    assert all(converted.backbone[k] is state[k] for k in state)
    assert converted.added == converted.unused == []


def test_a_whole_model_of_ours():
    backbone = BOATSwin(arch='nano', out_indices=(3,)).state_dict()
    state = {f'backbone.{k}': v for k, v in backbone.items()}
    state['head.fc.weight'] = torch.zeros(10, 192)
    state['head.fc.bias'] = torch.zeros(10)
    state['neck.lateral.weight'] = torch.zeros(1)
    converted = convert(state)
    assert converted.head == {
        'fc.weight': state['head.fc.weight'],
        'fc.bias': state['head.fc.bias'],
    }
    assert converted.unused == ['neck.lateral.weight']
    # Of the classifier, which has the last norm only, a detector is begun.
    assert converted.added == FRESH
    BOATSwin(arch='nano').load_state_dict(converted.backbone, strict=True)


def test_sizes_that_no_arch_has():
    arch = dict(embed_dims=32, depths=(1, 2, 1), num_heads=(2, 4, 8))
    model = BOATSwin(arch=arch, out_indices=(0, 1, 2))
    converted = convert(model.state_dict())
    assert converted.arch == arch
    assert converted.family == 'BOATSwin'


@pytest.mark.parametrize('name', BOATSwin.arch_zoo)
def test_arch_names_are_recognised(name):
    state = BOATSwin(arch=name).state_dict()
    assert convert(state).arch == name


@pytest.mark.parametrize('name', ['swin-nano', 'swin-small', 'swin-base'])
def test_pyramid_arch_names_are_recognised(name):
    state = AttentionPyramid(arch=name).state_dict()
    assert convert(state).arch == name


def test_our_names_that_are_not_swin_shaped_have_no_arch():
    state = {
        'stem.proj.weight': torch.zeros(8, 3, 4, 4),
        'stages.0.blocks.0.norm1.weight': torch.ones(8),
        'stages.0.blocks.0.attn.q.weight': torch.zeros(8, 8),
    }
    converted = convert(state)
    assert converted.family is None
    assert converted.arch is None
    assert converted.added == ['norm0.weight', 'norm0.bias']


def test_an_unknown_format_is_an_error():
    state = {f'conv{i}.weight': torch.zeros(1) for i in range(9)}
    for function in (detect_source, convert):
        with pytest.raises(UnknownFormat, match=r'conv5\.weight, \.\.\.') as e:
            function(state)
        assert e.value.option == ''


def test_an_unknown_source_is_an_error():
    with pytest.raises(ValueError, match="'vit'"):
        convert({}, source='vit')
    known = {'mmattn', 'boat_swin', 'swin', 'openmmlab_swin'}
    assert known <= set(source_names())


@pytest.mark.parametrize(
    'name',
    [
        'absolute_pos_embed',
        'layers.0.blocks.0.attn.logit_scale',
        'layers.0.blocks.1.mlp.fc3.weight',
        'layers.0.downsample.extra',
    ],
)
def test_an_unknown_key_is_an_error(official, name):
    state = official('swin') | {name: torch.zeros(1)}
    with pytest.raises(UnknownKeys, match=f'{name}; set strict=False'):
        convert(state)
    converted = convert(state, strict=False)
    assert converted.unused == [name]
    assert len(converted.backbone) == len(convert(official('swin')).backbone)


def test_a_wrong_source_is_an_error(official):
    with pytest.raises(UnknownKeys, match=r'attnC\.qkv'):
        convert(official('boat_swin'), source='swin')


def test_a_source_without_any_key_is_an_error(official):
    with pytest.raises(UnknownFormat, match='openmmlab_swin'):
        convert({'a': torch.zeros(1)}, 'openmmlab_swin', strict=False)


@pytest.mark.parametrize('source', source_names())
def test_a_foreign_file_of_each_source(source):
    state = {'conv1.weight': torch.zeros(1), 'fc.weight': torch.zeros(1)}
    want = f'format {source}.*: conv1.weight, fc.weight'
    if source == 'perspective_unet':
        want = 'Encoder2 is missing'
    with pytest.raises(ValueError, match=want):
        convert(state, source)


def test_unknown_keys_are_listed_before_shapes_are_looked_at(official):
    state = official('swin')
    name = 'layers.0.blocks.0.attn.relative_position_bias_table'
    state |= {name: torch.zeros(1), 'extra.x': torch.zeros(1)}
    with pytest.raises(UnknownKeys, match='extra.x'):
        convert(state)
    with pytest.raises(ValueError, match='unexpected shapes'):
        convert(state, strict=False)


def test_a_backbone_without_its_stem():
    state = {'stages.0.blocks.0.attn.lepe.weight': torch.zeros(8, 1, 3, 3)}
    converted = convert(state, 'mmattn')
    assert (converted.family, converted.arch) == (None, None)


def test_swin_weights_start_a_boat_swin(official):
    converted = convert(official('swin'))
    model = BOATSwin(arch='tiny')
    missing, extra = model.load_state_dict(converted.backbone, strict=False)
    assert extra == []
    assert missing
    assert all('.feature_' in name for name in missing)


def test_golden_values_survive(golden_case):
    # The names above carry numbers: here the numbers of one real layer.
    case = golden_case('boat_swin_tiny_224')
    name = 'layers.0.blocks.1.attnC.qkv.weight'
    state = {
        key: torch.from_numpy(np.asarray(case['state'][key]))
        for key in case['state']
        if key.startswith(('patch_embed', 'layers.0.blocks'))
    }
    backbone = convert(state).backbone
    ours = backbone['stages.0.blocks.1.feature_attn.qkv.weight']
    assert np.array_equal(ours.numpy(), case['state'][name])
    assert ours.dtype == torch.float64
