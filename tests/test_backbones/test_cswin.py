import pytest
import torch

from mmattn.attentions import FeatureSpaceAttention
from mmattn.backbones import BOATCSWin, CSWin
from mmattn.layers import FeatureSpaceBlock

CLASSES = 1000


@pytest.mark.parametrize(
    'family, arch, parameters',
    [
        (CSWin, 'tiny', 22_320_552),
        (CSWin, 'small', 34_643_304),
        (CSWin, 'base', 77_382_184),
        (CSWin, 'large', 173_262_664),
        (BOATCSWin, 'tiny', 26_390_952),
        (BOATCSWin, 'small', 40_112_488),
        (BOATCSWin, 'base', 89_628_712),
    ],
)
def test_parameters_of_the_published_models(family, arch, parameters):
    with torch.device('meta'):
        model = family(arch, out_indices=(3,))
    head = CLASSES * (model.out_channels[-1] + 1)
    assert head + sum(p.numel() for p in model.parameters()) == parameters


def test_parameters_of_the_published_dense_model():
    with torch.device('meta'):
        model = CSWin('tiny')
    assert sum(p.numel() for p in model.parameters()) == 21_808_448


@pytest.mark.parametrize('family', [CSWin, BOATCSWin])
def test_stripes_widen_and_the_last_stage_has_none(family):
    with torch.device('meta'):
        usual = family('tiny')
        wide = family('tiny', stripe_widths=(1, 2, 12, None))
    for model, third in ((usual, 7), (wide, 12)):
        for stage, width in zip(model.stages, (1, 2, third, None)):
            for block in stage.blocks:
                assert block.attn.lepe.stripe_width == width


def test_feature_space_attention_is_in_the_even_blocks():
    with torch.device('meta'):
        model = BOATCSWin('tiny', drop_path_rate=0.3)
    for stage in model.stages:
        for index, block in enumerate(stage.blocks):
            even = index % 2 == 0
            assert isinstance(block, FeatureSpaceBlock) == even
            if even:
                rate = block.drop_path.drop_prob
                assert block.feature_drop_path.drop_prob == rate
    assert rate == pytest.approx(0.3)


def test_the_scale_of_the_published_weights():
    def scales(**kwargs):
        model = BOATCSWin('nano', **kwargs)
        return {
            m.scale
            for m in model.modules()
            if isinstance(m, FeatureSpaceAttention)
        }

    assert scales() == {1.0}
    assert scales(feature_attention=dict(overlap=10)) == {1.0}
    assert scales(feature_attention=dict(scale=None)) == {None}


@pytest.mark.parametrize('family', [CSWin, BOATCSWin])
def test_a_stripe_width_for_each_stage(family):
    with pytest.raises(
        ValueError,
        match=rf'{family.__name__} expects one entry of stripe_widths for '
        r'each of 4 stages, got \(7, 7\)',
    ):
        family('nano', stripe_widths=(7, 7))
