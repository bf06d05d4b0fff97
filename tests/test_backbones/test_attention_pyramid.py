import pytest
import torch

from mmattn.attentions import FeatureSpaceAttention, WindowAttention
from mmattn.backbones import AttentionPyramid


def test_swin_tiny_has_the_parameters_of_swin():
    model = AttentionPyramid('swin-tiny', out_indices=(3, ))
    head = 1000 * (768 + 1)
    total = head + sum(p.numel() for p in model.parameters())
    assert total == 28_288_354


def test_blocks_take_the_attentions_of_their_stage_in_turn():
    feature = dict(
        type='mmattn.FeatureSpaceAttention', cluster_size=16, overlap=4)
    window = dict(type='WindowAttention', window_size=5)
    arch = dict(
        embed_dims=8,
        depths=(3, 1),
        num_heads=(2, 4),
        attentions=((window, feature), (feature, )))
    model = AttentionPyramid(arch, out_indices=(0, 1))
    kinds = [[type(block.attn) for block in stage.blocks]
             for stage in model.stages]
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
        depths=(1, ),
        num_heads=(1, ),
        attentions=((dict(type='mmattn.WindowAtention'), ), ))
    with pytest.raises(
            ValueError,
            match="registered attentions, such as .*'WindowAttention'.*got "
            "'mmattn.WindowAtention'"):
        AttentionPyramid(arch, out_indices=(0, ))
