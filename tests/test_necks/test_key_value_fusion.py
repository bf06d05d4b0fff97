import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS, DefaultScope

from mmattn.necks import KeyValueFusion

CHANNELS = (6, 10, 14)


def build(**kwargs):
    torch.manual_seed(0)
    options = dict(
        in_channels=CHANNELS, out_channels=8, num_heads=2, pool_size=3
    )
    return KeyValueFusion(**options | kwargs).double()


def pyramid(batch, height, width, channels=CHANNELS):
    return [
        torch.randn(batch, c, -(-height // 2**i), -(-width // 2**i)).double()
        for i, c in enumerate(channels)
    ]


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    batch=st.integers(1, 3),
)
def test_any_size(height, width, batch):
    levels = pyramid(batch, height, width)
    with torch.no_grad():
        outs = build()(levels)
    for level, out in zip(levels, outs, strict=True):
        assert out.shape == (batch, 8, *level.shape[2:])
        assert out.isfinite().all()


@pytest.mark.parametrize('size', [(8, 8), (13, 29)])
def test_an_image_does_not_depend_on_its_batch(size):
    neck = build()
    levels = pyramid(3, *size)
    with torch.no_grad():
        together = neck(levels)
        for i in range(3):
            alone = neck([level[i : i + 1] for level in levels])
            for a, b in zip(alone, together):
                torch.testing.assert_close(a[0], b[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize('source', [0, 1, 2])
def test_every_level_learns_from_every_level(source):
    neck = build()
    levels = [level.requires_grad_() for level in pyramid(1, 20, 24)]
    for out in neck(levels):
        # One place far from most of the map.
        grad = torch.autograd.grad(
            out[..., 0, 0].square().sum(), levels[source], retain_graph=True
        )[0]
        assert (grad.abs().sum(1) > 0).all()


def test_places_and_levels_tell_equal_tokens_apart():
    neck = build()
    tokens = torch.zeros(1, 27, 8).double()
    places = neck._places(tokens)
    assert places.shape == (27, 8)
    assert torch.cdist(places, places).fill_diagonal_(1).min() > 1e-3


def test_levels_beyond_are_the_last_at_half_the_size():
    levels = pyramid(1, 20, 24)
    outs = build(num_outs=5)(levels)
    assert len(outs) == 5
    assert torch.equal(outs[3], outs[2][..., ::2, ::2])
    assert torch.equal(outs[4], outs[3][..., ::2, ::2])


def test_start_level_leaves_out_the_first():
    neck = build(start_level=1)
    levels = pyramid(1, 20, 24)
    outs = neck(levels)
    assert [out.shape for out in outs] == [(1, 8, 10, 12), (1, 8, 5, 6)]
    other = [torch.zeros_like(levels[0]), *levels[1:]]
    assert all(map(torch.equal, neck(other), outs))


def test_every_parameter_learns():
    neck = build()
    outs = neck(pyramid(2, 12, 20))
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    idle = [key for key, p in neck.named_parameters() if p.grad is None]
    assert not idle


def test_memory_grows_linearly_with_the_tokens(kept_bytes):
    neck = build()
    inputs = [pyramid(1, H, W) for H, W in [(28, 28), (28, 56), (56, 56)]]
    once, twice, four_times = (
        kept_bytes(functools.partial(lambda x: neck(x)[0], levels))
        for levels in inputs
    )
    assert 1.9 < (four_times - twice) / (twice - once) < 2.1


def test_autocast(half):
    neck = build().float()
    levels = [level.float() for level in pyramid(1, 12, 20)]
    with torch.autocast('cpu', half):
        outs = neck(levels)
    sum(out.float().sum() for out in outs).backward()
    assert all(out.isfinite().all() for out in outs)
    assert all(p.grad.isfinite().all() for p in neck.parameters())


@pytest.mark.parametrize(
    'options',
    [dict(num_outs=2), dict(start_level=3), dict(start_level=-1)],
)
def test_wrong_levels(options):
    with pytest.raises(
        ValueError,
        match=r'KeyValueFusion expects start_level to be one of the levels '
        r'and num_outs .*got in_channels=\[6, 10, 14\]',
    ):
        build(**options)


@pytest.mark.parametrize('options', [dict(pool_size=0), dict(out_channels=10)])
def test_wrong_sizes(options):
    with pytest.raises(
        ValueError, match='pool_size >= 1 and out_channels to be a multiple'
    ):
        build(**options)


def test_another_number_of_levels():
    with pytest.raises(
        ValueError, match='KeyValueFusion expects 3 levels, got 2'
    ):
        build()(pyramid(1, 8, 8)[:2])


@pytest.mark.parametrize('host', ['mmengine', 'mmdet', 'mmseg'])
def test_stands_where_an_fpn_stands(host):
    """The arguments and the result of mmdet's and mmseg's FPN."""
    pytest.importorskip(host)
    cfg = dict(in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
    with DefaultScope.overwrite_default_scope(host):
        neck = MODELS.build(dict(type='mmattn.KeyValueFusion', **cfg))
        neck.init_weights()
        levels = [
            level.float() for level in pyramid(1, 32, 32, cfg['in_channels'])
        ]
        shapes = [out.shape for out in neck(levels)]
        if host != 'mmengine':
            fpn = MODELS.build(dict(type='FPN', **cfg))
            assert shapes == [out.shape for out in fpn(levels)]
    assert len(shapes) == 5
