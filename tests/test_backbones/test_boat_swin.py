import pytest

from mmattn.attentions import FeatureSpaceAttention
from mmattn.backbones import BOATSwin
from mmattn.layers import FeatureSpaceBlock


@pytest.mark.parametrize(
    'arch, parameters',
    [
        ('tiny', 30_265_186),
        ('small', 55_158_898),
        ('base', 97_612_960),
    ],
)
def test_parameters_of_the_published_models(arch, parameters):
    model = BOATSwin(arch, out_indices=(3,))
    head = 1000 * (model.out_channels[-1] + 1)
    total = head + sum(p.numel() for p in model.parameters())
    assert total == parameters


def test_feature_space_attention_is_in_the_shifted_blocks():
    model = BOATSwin('tiny')
    found = [
        [isinstance(block, FeatureSpaceBlock) for block in stage.blocks]
        for stage in model.stages
    ]
    assert found == [
        [False, True],
        [False, True],
        [False, True] * 3,
        [False, False],
    ]
    for stage in model.stages:
        for index, block in enumerate(stage.blocks):
            assert block.attn.with_shift == (index % 2 == 1)


def test_options_of_the_feature_space_attention():
    options = dict(cluster_size=16, overlap=4)
    model = BOATSwin('nano', feature_attention=options)
    layers = [
        m for m in model.modules() if isinstance(m, FeatureSpaceAttention)
    ]
    assert len(layers) == 3
    assert all(layer.cluster_size == 16 for layer in layers)
    with pytest.raises(TypeError, match='clutser_size'):
        BOATSwin('nano', feature_attention=dict(clutser_size=16))
