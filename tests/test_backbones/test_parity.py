"""Equality with the published models, in float64.

The numbers come from the published code, the weights from a rule; see
``tests/golden/README.md``.
"""

import numpy as np
import pytest
import torch
from golden import difference

from mmattn.attentions import FeatureSpaceAttention, WindowAttention
from mmattn.backbones import AttentionPyramid, BOATSwin
from mmattn.checkpoints import convert

TOLERANCE = 1e-9

CASES = {
    'boat_swin_tiny_224': BOATSwin,
    'swin_tiny_224': AttentionPyramid,
}


def to_tensors(state):
    return {key: torch.from_numpy(state[key]) for key in state}


def record_outputs(model):
    """Let a forward pass leave the maps that the cases captured."""
    maps = {}

    def keep(name):

        def hook(module, args, out):
            maps[name] = out.detach().flatten(1, 2).numpy()

        return hook

    stages = model.stages
    model.stem.register_forward_hook(keep('stem'))
    for i, stage in enumerate(stages):
        stage.blocks[-1].register_forward_hook(keep(f'stage{i + 1}'))
    stages[0].blocks[0].register_forward_hook(keep('first_block'))
    model.norm3.register_forward_hook(keep('final_norm'))
    if isinstance(model, BOATSwin):
        block = stages[0].blocks[1]
        block.feature_norm.register_forward_hook(keep('content_in'))
        block.feature_attn.register_forward_hook(keep('content_out'))
    return maps


@pytest.mark.parametrize('impl', ['reference', 'sdpa'])
@pytest.mark.parametrize('name', CASES)
def test_backbone_equals_published_model(name, impl, golden_case):
    case = golden_case(name)
    converted = convert(to_tensors(case['state']))
    assert converted.family == CASES[name].__name__
    model = CASES[name](converted.arch, out_indices=(3,)).double().eval()
    model.load_state_dict(converted.backbone, strict=True)
    for module in model.modules():
        if hasattr(module, 'impl'):
            module.impl = impl
    maps = record_outputs(model)
    with torch.no_grad():
        (out,) = model(torch.from_numpy(case['inputs']['x']))

    assert set(maps) == set(case['captures'])
    for name, capture in case['captures'].items():
        assert difference(capture, maps[name]) <= TOLERANCE, name

    head = converted.head
    logits = out.mean((2, 3)) @ head['fc.weight'].T + head['fc.bias']
    want = case['arrays']['logits']
    assert np.abs(logits - want).max() <= TOLERANCE * np.abs(want).max()

    if 'cluster_order' in case['arrays']:
        layer = model.stages[0].blocks[1].feature_attn
        x = torch.from_numpy(maps['content_in'])
        order = layer.cluster(layer.qkv(x.unflatten(1, (56, 56))))
        assert (order[0, 0].numpy() == case['arrays']['cluster_order']).all()


def test_feature_space_attention_equals_published_module(golden_case):
    case = golden_case('content_attention')
    layer = FeatureSpaceAttention(96, 3).double()
    layer.load_state_dict(
        {
            key.replace('get_v', 'lepe'): value
            for key, value in to_tensors(case['state']).items()
        }
    )
    x = torch.from_numpy(case['inputs']['x']).unflatten(1, (28, 28))
    out = layer(x).flatten(1, 2).detach().numpy()
    assert difference(case['captures']['out'], out) <= TOLERANCE
    order = layer.cluster(layer.qkv(x)).numpy()
    assert (order == case['arrays']['cluster_order']).all()


def test_window_attention_equals_attention_between_tokens(golden_case):
    case = golden_case('window_attention')
    layer = WindowAttention(
        96, 3, 7, qkv_bias=False, with_relative_position=False
    ).double()
    layer.load_state_dict(to_tensors(case['state']))
    x = torch.from_numpy(case['inputs']['x']).unflatten(1, (7, 7))
    out = layer(x).flatten(1, 2).detach().numpy()
    assert difference(case['captures']['out_tokens'], out) <= TOLERANCE
