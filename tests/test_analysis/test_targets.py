"""Names on a command line, and the models behind them."""

import pytest
import torch

from mmattn.analysis.targets import read_target
from mmattn.backbones import BOATSwin

SIZE = (64, 64)


def maps_of(name, outputs='last', size=SIZE):
    model = read_target(name, outputs).build(size)
    model.eval()  # returns nothing in mmpretrain
    with torch.no_grad():
        return [tuple(out.shape) for out in model(torch.rand(1, 3, *size))]


@pytest.mark.parametrize(
    'name',
    [
        'boat-swin-nano',
        "mmattn.BOATSwin(arch='nano')",
        'configs/boat_swin/boat-swin-nano_1xb32-25e_digits.py',
    ],
)
def test_the_last_map_or_all(name):
    assert maps_of(name) == [(1, 192, 2, 2)]
    assert maps_of(name, 'all') == [
        (1, 24, 16, 16),
        (1, 48, 8, 8),
        (1, 96, 4, 4),
        (1, 192, 2, 2),
    ]


def test_arguments_change_the_model():
    name = 'boat-swin-nano(out_indices=(1,), in_channels=3)'
    assert maps_of(name) == [(1, 48, 8, 8)]


def test_an_implementation_for_all_operations():
    assert read_target('boat-swin-nano').impl is None
    target = read_target("boat-swin-nano(impl='reference')")
    assert target.impl == 'reference'
    assert isinstance(target.build(SIZE), BOATSwin)
    with pytest.raises(ValueError, match="impl .*'sdpa'.* got 'none'"):
        read_target("boat-swin-nano(impl='none')")


@pytest.mark.parametrize(
    'name',
    [
        'mmpretrain:swin-tiny_16xb64_in1k',
        'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
        'mmpretrain.SwinTransformer',
    ],
)
def test_a_codebase(name):
    pytest.importorskip('mmpretrain')
    small = (
        "(arch={'embed_dims': 8, 'depths': [1, 1, 1, 1], "
        "'num_heads': [1, 1, 1, 1]}, pad_small_map=True)"
    )
    assert maps_of(name + small) == [(1, 64, 2, 2)]


def test_an_unknown_config_of_a_codebase():
    pytest.importorskip('mmpretrain')
    with pytest.raises(FileNotFoundError, match='swin-tinny_16xb64_in1k'):
        read_target('mmpretrain:swin-tinny_16xb64_in1k')


def test_timm_without_its_classifier():
    pytest.importorskip('timm')
    small = '(depths=(1, 1, 1, 1), embed_dim=12)'
    name = 'timm:swin_tiny_patch4_window7_224' + small
    model = read_target(name).build((64, 96)).eval()
    assert model(torch.rand(1, 3, 64, 96)).shape == (1, 96)
    assert len(maps_of(name, 'all')) == 4
    # This one has no img_size.
    model = read_target('timm:test_resnet').build((64, 96)).eval()
    assert model(torch.rand(1, 3, 64, 96)).ndim == 2


def test_torchvision_without_its_classifier():
    pytest.importorskip('torchvision')
    model = read_target('torchvision:resnet18').build(SIZE).eval()
    assert model(torch.rand(1, 3, *SIZE)).shape == (1, 512)
    with pytest.raises(ValueError, match='last map'):
        read_target('torchvision:resnet18', 'all')


def test_a_library_that_is_missing(monkeypatch):
    monkeypatch.setattr(
        'importlib.util.find_spec', lambda name: None, raising=True
    )
    with pytest.raises(ImportError, match='pip install timm'):
        read_target('timm:swin_tiny_patch4_window7_224')


@pytest.mark.parametrize(
    'name, error, message',
    [
        ('boat-swin-tinny', ValueError, 'boat-swin-tiny'),
        ('mmattn.BOATS', ValueError, 'mmattn.BOATS'),
        ('none.py', FileNotFoundError, 'none.py'),
        ('other:none', ValueError, 'other:none'),
        ('swin-nano(3)', ValueError, r'NAME\(key=value'),
        ('swin-nano(a=b)', ValueError, r'NAME\(key=value'),
        ('swin-nano(a=1', ValueError, r'NAME\(key=value'),
    ],
)
def test_names_that_mean_nothing(name, error, message):
    with pytest.raises(error, match=message):
        read_target(name)


def test_wrong_arguments_are_named_when_built():
    target = read_target('smt-nano(in_chanels=1)')
    with pytest.raises(TypeError, match='in_chanels'):
        target.build(SIZE)
