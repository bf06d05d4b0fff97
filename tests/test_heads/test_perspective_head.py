import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import difference
from mmengine.registry import MODELS, DefaultScope

from mmattn.checkpoints.perspective import name_in_perspective_head

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
        in_channels=CHANNELS[1:],
        channels=6,
        num_classes=3,
    )
    return MODELS.build(options | kwargs)


def pyramid(batch, height, width):
    return [
        torch.randn(batch, c, height // 2**i, width // 2**i)
        for i, c in enumerate(CHANNELS)
    ]


def test_equals_published_decoder(golden_case):
    case = golden_case('perspective_decoder')
    head = build(
        in_channels=[128, 256, 512, 1024],
        channels=64,
        num_classes=9,
        dropout_ratio=0.0,
    )
    head = head.double().eval()
    numbers = sum(p.numel() for p in head.parameters())
    assert numbers == case['meta']['num_parameters'] == 11_031_625
    state = {
        name_in_perspective_head(key): torch.from_numpy(value)
        for key, value in case['state'].items()
    }
    counters = case['meta']['left_as_built']
    state |= {
        name_in_perspective_head(key): torch.tensor(0) for key in counters
    }
    head.load_state_dict(state, strict=True)

    parts = dict(first_block=head.deepest, last_block=head.finest)
    parts |= {f'block{i}': join for i, join in enumerate(head.joins)}
    maps = {}
    for name, part in parts.items():
        part.register_forward_hook(
            lambda module, args, out, name=name: maps.update({name: out})
        )
    inputs = [torch.from_numpy(x) for x in case['inputs'].values()]
    with torch.no_grad():
        maps['logits'] = head(inputs)
    assert maps.keys() == case['captures'].keys()
    for name, out in maps.items():
        found = difference(case['captures'][name], np.asarray(out))
        assert found <= 1e-9, name


@pytest.mark.parametrize('size', [(16, 16), (32, 48), (37, 61)])
def test_gives_logits_of_any_size(size):
    head = build().eval()
    levels = pyramid(2, *size)
    out = head(levels)
    assert out.shape == (2, 3, *(2 * (side // 2) for side in size))
    alone = head([level[:1] for level in levels])
    torch.testing.assert_close(alone, out[:1], rtol=1e-4, atol=1e-5)


def test_labels_of_an_odd_size():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, 37, 61)))
    losses = build().loss(pyramid(2, 37, 61), [sample] * 2, None)
    assert losses['loss_ce'].isfinite()


def test_every_parameter_and_every_map_but_the_first_is_used():
    head = build(dropout_ratio=0.0)
    levels = [level.requires_grad_() for level in pyramid(1, 32, 32)]
    head(levels).square().sum().backward()
    assert levels[0].grad is None
    assert all(level.grad.abs().max() > 0 for level in levels[1:])
    idle = [key for key, p in head.named_parameters() if p.grad is None]
    assert not idle


def test_a_subset_of_the_maps():
    head = build(in_channels=[16, 64], in_index=[1, 2])
    assert head(
        [None, torch.randn(1, 16, 8, 8), torch.randn(1, 64, 4, 4)]
    ).shape == (1, 3, 16, 16)


def test_corners_stay_in_place_if_asked():
    heads = build().eval(), build(align_corners=False).eval()
    levels = pyramid(1, 32, 32)
    with torch.no_grad():
        a, b = (head(levels) for head in heads)
    assert (a - b).abs().max() > 1e-3 * a.abs().max()


@pytest.mark.parametrize(
    'options',
    [dict(in_index=(0, 1)), dict(in_channels=[8], in_index=(0,))],
)
def test_maps_that_do_not_fit(options):
    with pytest.raises(
        ValueError,
        match='in_channels and in_index',
    ):
        build(**options)


def test_without_mmseg_the_other_names_stay():
    code = (
        'import sys\n'
        "sys.modules['mmseg'] = None\n"
        'from mmattn.registry import MODELS\n'
        "print(MODELS.get('mmattn.ENLTB'))\n"
        "MODELS.build(dict(type='mmattn.PerspectiveHead'))\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout == "<class 'mmattn.plugins.enltb.ENLTB'>\n"
    assert 'ImportError: PerspectiveHead needs mmseg' in done.stderr
