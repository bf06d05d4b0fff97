import pytest
import torch

from mmattn.attentions import (
    EfficientNonLocalAttention,
    FeatureSpaceAttention,
    KeyValueAttention,
    SlidingWindowAttention,
    WindowAttention,
)
from mmattn.backbones import AttentionPyramid


def test_swin_tiny_has_the_parameters_of_swin():
    model = AttentionPyramid('swin-tiny', out_indices=(3,))
    head = 1000 * (768 + 1)
    total = head + sum(p.numel() for p in model.parameters())
    assert total == 28_288_354


KINDS = {
    'sliding-window': SlidingWindowAttention,
    'key-value': KeyValueAttention,
    'enltb': EfficientNonLocalAttention,
}


@pytest.mark.parametrize('kind', KINDS)
def test_ready_made_archs_are_about_the_size_of_swin(kind):
    total = sum(
        p.numel()
        for p in AttentionPyramid(
            f'{kind}-tiny', out_indices=(3,)
        ).parameters()
    )
    swin = 28_288_354 - 1000 * (768 + 1)
    assert 0.9 * swin < total < 1.1 * swin


@pytest.fixture(scope='module')
def nanos():
    torch.manual_seed(0)
    return {
        kind: AttentionPyramid(f'{kind}-nano').double().eval()
        for kind in KINDS
    }


@pytest.mark.parametrize('kind', KINDS)
def test_ready_made_archs_have_their_attention_in_every_block(kind, nanos):
    blocks = [b for stage in nanos[kind].stages for b in stage.blocks]
    assert [type(block.attn) for block in blocks] == [KINDS[kind]] * 8


@pytest.mark.parametrize('size', [(32, 32), (37, 101), (97, 64)])
@pytest.mark.parametrize('kind', KINDS)
def test_ready_made_archs_take_any_size_and_batch(kind, size, nanos):
    model = nanos[kind]
    images = torch.randn(3, 3, *size).double()
    with torch.no_grad():
        together = model(images)
        for i, image in enumerate(images):
            for alone, out in zip(model(image[None]), together):
                torch.testing.assert_close(
                    alone[0], out[i], rtol=0, atol=1e-12
                )
    for i, out in enumerate(together):
        sides = [-(-side // (4 * 2**i)) for side in size]
        assert out.shape == (3, 24 * 2**i, *sides)


@pytest.mark.parametrize('kind', KINDS)
def test_ready_made_archs_learn_with_every_parameter(kind):
    model = AttentionPyramid(f'{kind}-nano', drop_path_rate=0.0).double()
    outs = model(torch.rand(2, 3, 64, 96).double())
    sum((out * torch.rand_like(out)).sum() for out in outs).backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None]
    assert not idle


def test_layers_of_a_stage_draw_features_of_their_own(nanos):
    first, second = nanos['enltb'].stages[2].blocks
    assert not torch.equal(first.attn.projection, second.attn.projection)


def test_keys_and_values_are_as_many_at_every_stage(nanos):
    reductions = [
        stage.blocks[0].attn.spatial_reduction
        for stage in nanos['key-value'].stages
    ]
    sides = [224 // (4 * 2**i) // r for i, r in enumerate(reductions)]
    assert sides == [7, 7, 7, 7]


def test_blocks_take_the_attentions_of_their_stage_in_turn():
    feature = dict(
        type='mmattn.FeatureSpaceAttention', cluster_size=16, overlap=4
    )
    window = dict(type='WindowAttention', window_size=5)
    arch = dict(
        embed_dims=8,
        depths=(3, 1),
        num_heads=(2, 4),
        attentions=((window, feature), (feature,)),
    )
    model = AttentionPyramid(arch, out_indices=(0, 1))
    kinds = [
        [type(block.attn) for block in stage.blocks] for stage in model.stages
    ]
    assert kinds == [
        [WindowAttention, FeatureSpaceAttention, WindowAttention],
        [FeatureSpaceAttention],
    ]
    assert model.stages[0].blocks[2].attn.window_size == 5
    assert model.stages[1].blocks[0].attn.num_heads == 4
    shapes = [tuple(out.shape) for out in model(torch.rand(1, 3, 50, 33))]
    assert shapes == [(1, 8, 13, 9), (1, 16, 7, 5)]


def test_unknown_attention_lists_the_known_ones():
    arch = dict(
        embed_dims=8,
        depths=(1,),
        num_heads=(1,),
        attentions=((dict(type='mmattn.WindowAtention'),),),
    )
    with pytest.raises(
        ValueError,
        match="registered attentions, such as .*'WindowAttention'.*got "
        "'mmattn.WindowAtention'",
    ):
        AttentionPyramid(arch, out_indices=(0,))


def test_one_attention_in_place_of_a_list():
    arch = dict(
        embed_dims=8,
        depths=(1,),
        num_heads=(1,),
        attentions=(dict(type='mmattn.WindowAttention'),),
    )
    with pytest.raises(TypeError, match='one list of configs for each stage'):
        AttentionPyramid(arch, out_indices=(0,))
