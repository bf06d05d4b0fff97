import pytest
import torch

from mmattn.backbones import PerspectiveEncoder
from mmattn.checkpoints import convert, detect_source


@pytest.fixture
def official(golden_case):
    """All names and shapes of the published encoder, random values."""
    entries = golden_case('perspective_encoder')['meta']['state_dict']
    # One number a tensor: a hundred million would take long to draw.
    return {
        name: torch.tensor(float(i)).expand(shape)
        for i, (name, shape, _) in enumerate(entries)
    }


@pytest.mark.parametrize('prefix', ['', 'encoder.', 'backbone.'])
def test_every_tensor_of_the_published_file_finds_its_place(official, prefix):
    state = {prefix + name: value for name, value in official.items()}
    assert detect_source(state) == 'perspective_unet'
    converted = convert(state)
    assert converted.family == 'PerspectiveEncoder'
    assert converted.arch == 'base'
    assert converted.unused == [] and converted.added == []
    with torch.device('meta'):
        want = PerspectiveEncoder('base').state_dict()
    got = converted.backbone
    assert {k: v.shape for k, v in got.items()} == {
        k: v.shape for k, v in want.items()
    }


def test_joined_projections_are_parted(official):
    name = 'scale_integrator.transformer.layers.2.self_attn.in_proj_bias'
    official[name] = torch.arange(768.0)
    backbone = convert(official).backbone
    for part, start in zip('qkv', (0, 256, 512)):
        bias = backbone[f'integrator.layers.2.attn.{part}_proj.bias']
        assert torch.equal(bias, torch.arange(start, start + 256.0))


def test_a_decoder_beside_it_is_told_as_unused(official):
    state = {f'encoder.{name}': value for name, value in official.items()}
    state['decoder.up.weight'] = torch.zeros(1)
    assert convert(state).unused == ['decoder.up.weight']


def test_a_name_that_fits_nowhere(official):
    official['Encoder2.strange.0.weight'] = torch.zeros(1)
    with pytest.raises(ValueError, match='Encoder2.strange.0.weight'):
        convert(official)


def test_our_own_file_is_recognised():
    model = PerspectiveEncoder('nano')
    converted = convert(model.state_dict())
    assert converted.source == 'mmattn'
    assert (converted.family, converted.arch) == ('PerspectiveEncoder', 'nano')
    PerspectiveEncoder(converted.arch).load_state_dict(converted.backbone)


def test_pretrained_by_config(tmp_path):
    saved = PerspectiveEncoder('nano')
    torch.save(saved.state_dict(), tmp_path / 'encoder.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'encoder.pth'))
    model = PerspectiveEncoder('nano', init_cfg=init)
    model.init_weights()
    want = saved.state_dict()
    assert all(torch.equal(v, want[k]) for k, v in model.state_dict().items())
