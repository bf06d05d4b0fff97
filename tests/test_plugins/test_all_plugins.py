"""What every registered plugin promises, found in the registry."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_plugin_layer

import mmattn.attentions
import mmattn.plugins  # noqa: F401
from mmattn.registry import MODELS

C = 12


def registered(package):
    return sorted(
        name
        for name, cls in MODELS.module_dict.items()
        if cls.__module__.startswith(package)
    )


ATTENTIONS = registered('mmattn.attentions')
PLUGINS = [n for n in registered('mmattn.plugins') if n != 'AttentionPlugin']
# The plugin of any attention, once for each, and those of their own.
NAMES = PLUGINS + [f'AttentionPlugin-{name}' for name in ATTENTIONS]


def build(name, in_channels=C):
    torch.manual_seed(0)
    name, _, attention = name.partition('-')
    kwargs = {}
    if attention:
        attention = dict(type=f'mmattn.{attention}', num_heads=4)
        kwargs = dict(attention=attention, init_scale=1.0)
    return MODELS.get(name)(in_channels=in_channels, **kwargs).double()


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_the_registry_holds_plugins():
    assert {'ENLTB', 'ENLCA'} <= set(PLUGINS)
    assert 'AttentionPlugin-SlidingWindowAttention' in NAMES


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    batch=st.integers(1, 3),
    name=st.sampled_from(NAMES),
)
def test_any_size(name, height, width, batch):
    x = torch.randn(batch, C, height, width).double()
    with torch.no_grad():
        out = build(name).eval()(x)
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize('size', [(1, 1), (13, 29), (32, 32)])
def test_an_image_does_not_depend_on_its_batch(name, size):
    plugin = build(name).eval()
    maps = torch.randn(3, C, *size).double()
    with torch.no_grad():
        together = plugin(maps)
        for i, x in enumerate(maps):
            torch.testing.assert_close(
                plugin(x[None])[0], together[i], rtol=0, atol=1e-12
            )


def test_every_parameter_learns(name):
    plugin = build(name)
    out = plugin(torch.randn(2, C, 11, 17).double())
    (out * torch.randn_like(out)).sum().backward()
    idle = [key for key, p in plugin.named_parameters() if p.grad is None]
    assert not idle


def test_a_channels_last_map(name):
    plugin = build(name).eval()
    x = torch.randn(2, C, 9, 14).double()
    other = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(plugin(other), plugin(x))


def test_memory_grows_linearly_with_the_tokens(name, kept_bytes):
    plugin = build(name)
    maps = [
        torch.randn(1, C, H, W).double()
        for H, W in [(28, 28), (28, 56), (56, 56)]
    ]
    once, twice, four_times = (
        kept_bytes(functools.partial(plugin, x)) for x in maps
    )
    assert 1.9 < (four_times - twice) / (twice - once) < 2.1


def test_mmcv_builds_it_with_a_name_of_its_own(name):
    cls = MODELS.get(name.partition('-')[0])
    cfg = dict(type=f'mmattn.{cls.__name__}', postfix='2')
    if cls.__name__ == 'AttentionPlugin':
        cfg['attention'] = dict(type='mmattn.WindowAttention', num_heads=2)
    built, plugin = build_plugin_layer(
        cfg, in_channels=8, postfix=cfg.pop('postfix')
    )
    assert built == f'{cls._abbr_}2'
    assert type(plugin) is cls
