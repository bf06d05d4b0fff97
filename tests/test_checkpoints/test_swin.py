"""Swin checkpoints of other libraries compute the same after conversion."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope

from mmattn.backbones import AttentionPyramid
from mmattn.checkpoints import UnknownFormat, UnknownKeys, convert
from mmattn.checkpoints.conversion import find_prefixes

DEPTHS, HEADS = (2, 2, 2, 2), (1, 2, 4, 8)


def randomized(model):
    """In float64, norms and biases included."""
    model.double().eval()
    for parameter in model.parameters():
        scale = max(parameter[0].numel(), 1) ** -0.5
        parameter.data = torch.randn_like(parameter) * scale
    return model


def from_timm(size=224, window=7):
    swin = pytest.importorskip('timm.models.swin_transformer')
    return randomized(
        swin.SwinTransformer(
            img_size=size,
            embed_dim=24,
            depths=DEPTHS,
            num_heads=HEADS,
            window_size=window,
            num_classes=5,
        )
    )


def from_torchvision(window=7):
    swin = pytest.importorskip('torchvision.models.swin_transformer')
    return randomized(
        swin.SwinTransformer(
            patch_size=[4, 4],
            embed_dim=24,
            depths=list(DEPTHS),
            num_heads=list(HEADS),
            window_size=[window, window],
            num_classes=5,
        )
    )


def as_microsoft(state):
    """Names of microsoft and timm < 0.9, from those of timm >= 0.9."""
    renamed = {}
    for name, value in state.items():
        for stage in (1, 2, 3):
            old = f'layers.{stage}.downsample.'
            name = name.replace(old, f'layers.{stage - 1}.downsample.')
        renamed[name.replace('head.fc.', 'head.')] = value
    return renamed


def converted_model(state, source):
    """The backbone and the head of a converted checkpoint."""
    converted = convert(state)
    assert converted.source == source
    assert converted.family == 'AttentionPyramid'
    assert converted.unused == []
    backbone = AttentionPyramid(arch=converted.arch).double().eval()
    backbone.load_state_dict(converted.backbone, strict=True)
    return backbone, converted.head


def check_logits(state, source, x, want):
    backbone, head = converted_model(state, source)
    with torch.no_grad():
        pooled = backbone(x)[-1].mean((2, 3))
    got = F.linear(pooled, head['fc.weight'], head['fc.bias'])
    assert (got - want).abs().max() < 1e-10 * want.abs().max()


@pytest.mark.parametrize('size, window', [(224, 7), (128, 4), (96, 12)])
def test_timm(size, window):
    model = from_timm(size, window)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        want = model(x)
    check_logits(model.state_dict(), 'swin', x, want)
    check_logits(as_microsoft(model.state_dict()), 'swin', x, want)


def test_timm_feature_extractor():
    timm = pytest.importorskip('timm')
    model = timm.create_model(
        'swin_tiny_patch4_window7_224', features_only=True
    )
    backbone, head = converted_model(model.state_dict(), 'swin')
    assert head == {}
    model.double().eval()
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    backbone.double()
    for i in range(4):  # timm returns the maps without norms
        backbone.add_module(f'norm{i}', torch.nn.Identity())
    with torch.no_grad():
        for got, want in zip(backbone(x), model(x), strict=True):
            want = want.permute(0, 3, 1, 2)
            assert (got - want).abs().max() < 1e-6 * want.abs().max()


@pytest.mark.parametrize('window, size', [(7, (224, 224)), (4, (152, 192))])
def test_torchvision(window, size):
    model = from_torchvision(window)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        want = model(x)
    check_logits(model.state_dict(), 'torchvision_swin', x, want)


def test_swin_v2_of_openmmlab_has_unknown_keys():
    names = 'qkv.weight', 'proj.weight', 'logit_scale', 'cpb_mlp.0.weight'
    state = {f'stages.0.blocks.0.attn.w_msa.{x}': torch.ones(1) for x in names}
    state['patch_embed.projection.weight'] = torch.ones(1, 3, 4, 4)
    with pytest.raises(UnknownKeys, match='2 keys .*logit_scale.*cpb_mlp'):
        convert(state)


@pytest.mark.parametrize('codebase', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_openmmlab(codebase, prefix):
    models = pytest.importorskip(f'{codebase}.models.backbones')
    model = randomized(
        models.SwinTransformer(
            embed_dims=24, depths=DEPTHS, num_heads=HEADS, window_size=7
        )
    )
    state = {prefix + k: v for k, v in model.state_dict().items()}
    backbone, _ = converted_model(state, 'openmmlab_swin')
    x = torch.randn(1, 3, 256, 320, dtype=torch.float64)
    with torch.no_grad():
        for got, want in zip(backbone(x), model(x), strict=True):
            assert (got - want).abs().max() < 1e-10 * want.abs().max()


def test_mmpretrain_classifier():
    models = pytest.importorskip('mmpretrain.models')
    arch = dict(embed_dims=24, depths=DEPTHS, num_heads=HEADS)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = models.ImageClassifier(
            backbone=dict(type='SwinTransformer', arch=arch, img_size=224),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=192),
        )
    randomized(model)
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        want = model(x)  # logits
    check_logits(model.state_dict(), 'openmmlab_swin', x, want)


def test_swin_v2_is_of_no_known_format():
    swin = pytest.importorskip('timm.models.swin_transformer_v2')
    model = swin.SwinTransformerV2(
        img_size=56, embed_dim=24, depths=(1,), num_heads=(1,)
    )
    with pytest.raises(UnknownFormat):
        convert(model.state_dict())


@pytest.mark.parametrize(
    'places, found',
    [
        (['net.'], ['net.']),
        (['model.backbone.'], ['model.']),  # Lightning
        (['student.backbone.', 'teacher.backbone.'], ['student.', 'teacher.']),
        (['module.ema.net.'], ['module.ema.net.']),
    ],
)
def test_unknown_prefixes_are_proposed(places, found):
    swin = from_timm(56, 7).state_dict()
    state = {'step': torch.zeros(1)}
    for place in places:
        state |= {place + name: value for name, value in swin.items()}
    assert find_prefixes(state) == found
    with pytest.raises(UnknownFormat) as raised:
        convert(state)
    assert raised.value.prefixes == found
    for prefix in found:
        assert f'prefix={prefix!r}' in str(raised.value)
        for given in (prefix, prefix.rstrip('.')):
            assert convert(state, prefix=given).source == 'swin'


def test_unknown_keys_name_the_option():
    state = from_timm(56, 7).state_dict() | {'extra.weight': torch.zeros(1)}
    with pytest.raises(UnknownKeys, match='extra.weight.*strict=False'):
        convert(state)
