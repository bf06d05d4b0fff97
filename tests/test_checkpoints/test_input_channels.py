"""RGB stems for images with other channels."""

import pytest
import torch
from mmengine.logging import MMLogger

from mmattn.backbones import SMT, BOATSwin, CSWin
from mmattn.checkpoints.input_channels import adapt_input_channels


@pytest.mark.parametrize('channels', range(1, 14))
def test_as_timm(channels):
    timm = pytest.importorskip('timm.models')
    weight = torch.randn(4, 3, 7, 7)
    want = timm.adapt_input_conv(channels, weight.clone())
    got = adapt_input_channels(weight, channels)
    assert got.shape == (4, channels, 7, 7)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('channels', range(1, 14))
def test_response_to_equal_channels_is_kept(channels):
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    got = adapt_input_channels(weight, channels)
    if channels % 3 == 0 or channels == 1:
        want = weight.sum(1)
        torch.testing.assert_close(got.sum(1), want)


@pytest.mark.parametrize('family', [BOATSwin, CSWin, SMT])
@pytest.mark.parametrize('channels', [1, 4])
def test_pretrained_backbone(family, channels, tmp_path):
    rgb = family('nano')
    path = str(tmp_path / 'rgb.pth')
    torch.save(rgb.state_dict(), path)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    model = family('nano', in_channels=channels, init_cfg=init_cfg)
    model.init_weights()
    name = 'stem.conv.weight' if family is SMT else 'stem.proj.weight'
    for key, value in model.state_dict().items():
        want = rgb.state_dict()[key]
        if key == name:
            want = adapt_input_channels(want, channels)
        assert torch.equal(value, want), key


def load(path, channels, **options):
    init_cfg = dict(type='Pretrained', checkpoint=path, **options)
    BOATSwin('nano', in_channels=channels, init_cfg=init_cfg).init_weights()


def test_adaptation_is_logged_and_can_be_disabled(tmp_path, monkeypatch):
    path, lines = str(tmp_path / 'rgb.pth'), []
    torch.save(BOATSwin('nano').state_dict(), path)
    logger = MMLogger.get_instance('test_input_channels')
    monkeypatch.setattr(logger, 'handle', lambda r: lines.append(r.msg))
    load(path, 4)
    assert 'stem.proj.weight of RGB images to 4 ' in lines[-1]
    with pytest.raises(ValueError, match='stem.proj.weight'):
        load(path, 4, adapt_channels=False)
