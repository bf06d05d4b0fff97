import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = [8, 16, 32, 64, 128]


@pytest.fixture(autouse=True)
def mmseg():
    pytest.importorskip('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def build(**kwargs):
    torch.manual_seed(0)
    options = dict(
        type='mmattn.PerspectiveHead',
        in_channels=CHANNELS,
        channels=6,
        num_classes=3,
    )
    return MODELS.build(options | kwargs)


def pyramid(batch, height, width):
    return [
        torch.randn(batch, c, height // 2**i, width // 2**i)
        for i, c in enumerate(CHANNELS)
    ]


@pytest.mark.parametrize('size', [(16, 16), (32, 48), (37, 61)])
def test_gives_logits_of_any_size(size):
    head = build().eval()
    levels = pyramid(2, *size)
    out = head(levels)
    assert out.shape == (2, 3, *size)
    alone = head([level[:1] for level in levels])
    torch.testing.assert_close(alone, out[:1], rtol=1e-4, atol=1e-5)


def test_every_parameter_and_every_map_is_used():
    head = build(dropout_ratio=0.0)
    levels = [level.requires_grad_() for level in pyramid(1, 32, 32)]
    head(levels).square().sum().backward()
    assert all(level.grad.abs().max() > 0 for level in levels)
    idle = [key for key, p in head.named_parameters() if p.grad is None]
    assert not idle


def test_a_subset_of_the_maps():
    head = build(in_channels=[16, 64], in_index=[1, 2])
    assert head(
        [None, torch.randn(1, 16, 8, 8), torch.randn(1, 64, 4, 4)]
    ).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    'options',
    [dict(in_index=(0, 1)), dict(in_channels=[8], in_index=(0,))],
)
def test_maps_that_do_not_fit(options):
    with pytest.raises(
        ValueError,
        match='PerspectiveHead expects in_channels and in_index of two or',
    ):
        build(**options)


def test_without_mmseg_the_other_names_stay():
    code = (
        'import sys\n'
        "sys.modules['mmseg'] = None\n"
        'from mmattn.registry import MODELS\n'
        "print(MODELS.get('mmattn.ENLTB'), MODELS.get('PerspectiveHead'))\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout == "<class 'mmattn.plugins.enltb.ENLTB'> None\n", (
        done.stderr
    )
