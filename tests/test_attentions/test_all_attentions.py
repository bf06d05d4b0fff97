"""What every registered attention promises, found in the registry."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmattn.attentions  # noqa: F401
from mmattn.registry import MODELS

ATTENTIONS = sorted(
    name
    for name, cls in MODELS.module_dict.items()
    if cls.__module__.startswith('mmattn.attentions')
)
C, HEADS = 12, 4


def build(name, **kwargs):
    """In evaluation mode: batch normalisation looks at the batch otherwise."""
    torch.manual_seed(0)
    layer = MODELS.get(name)(embed_dims=C, num_heads=HEADS, **kwargs)
    return layer.double().eval()


@pytest.fixture(params=ATTENTIONS)
def name(request):
    return request.param


def test_the_registry_holds_attentions():
    assert {'WindowAttention', 'FeatureSpaceAttention'} <= set(ATTENTIONS)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    batch=st.integers(1, 3),
    name=st.sampled_from(ATTENTIONS),
)
def test_any_size(name, height, width, batch):
    x = torch.randn(batch, height, width, C).double()
    out = build(name)(x)
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize('size', [(1, 1), (7, 7), (13, 29), (8, 40)])
def test_an_image_does_not_depend_on_its_batch(name, size):
    layer = build(name)
    maps = torch.randn(3, *size, C).double()
    together, turned = layer(maps), layer(maps.flip(0))
    for i, x in enumerate(maps):
        alone = layer(x[None])[0]
        torch.testing.assert_close(alone, together[i], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone, turned[2 - i], rtol=0, atol=1e-12)


def test_every_parameter_gets_a_gradient(name):
    layer = build(name)
    out = layer(torch.randn(2, 11, 17, C).double())
    (out * torch.randn_like(out)).sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None, key
        # Adding one vector to all keys does not change a softmax.
        if key == 'k_proj.bias':
            continue
        grad = parameter.grad if key != 'qkv.bias' else parameter.grad[:C]
        assert grad.abs().max() > 0, key


def test_a_layout_other_than_contiguous(name):
    layer = build(name)
    x = torch.randn(2, C, 9, 14).double().permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), layer(x.contiguous()))


@pytest.mark.parametrize('impl', ['sdpa', 'cpp', 'auto'])
def test_implementations_agree(name, impl):
    x = torch.randn(2, 9, 14, C).double()
    want = build(name, impl='reference')(x)
    kernels = 'CrossShaped', 'FeatureSpace', 'ScaleAware', 'Window', 'Sliding'
    if impl == 'sdpa' and name.startswith('EfficientNonLocal'):
        pytest.skip('there is no softmax to fuse')
    if impl == 'cpp' and not name.startswith(kernels):
        pytest.skip('its operation has no kernel')
    out = build(name, impl=impl)(x)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)


def test_unknown_implementation(name):
    with pytest.raises(ValueError, match="'fastest'"):
        build(name, impl='fastest')(torch.randn(1, 4, 4, C).double())


def test_memory_grows_linearly_with_the_tokens(name, kept_bytes):
    """Sizes at which clusters, windows and stripes hold as many tokens."""
    layer = build(name)
    sizes = [(28, 28), (28, 56), (56, 56)]
    maps = [torch.randn(1, *size, C).double() for size in sizes]
    once, twice, four_times = (
        kept_bytes(functools.partial(layer, x)) for x in maps
    )
    # Twice as much more for twice as many more tokens; 4 with N x N scores.
    assert 1.9 < (four_times - twice) / (twice - once) < 2.1


def test_autocast(name, half):
    layer = build(name).float()
    x = torch.randn(2, 10, 12, C)
    with torch.autocast('cpu', half):
        out = layer(x)
    out.float().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_sizes_show_in_print(name):
    assert f'num_heads={HEADS}' in repr(build(name))


def test_heads_that_do_not_divide_the_channels(name):
    with pytest.raises(
        ValueError,
        match=f'{name} expects num_heads to divide embed_dims, got '
        'embed_dims=12, num_heads=5',
    ):
        MODELS.get(name)(embed_dims=12, num_heads=5)


@pytest.mark.parametrize('shape', [(2, 49, C), (2, C, 7, 7)])
def test_what_is_no_map(name, shape):
    with pytest.raises(
        ValueError,
        match=rf'{name} expects a channels-last map \(B, H, W, 12\)',
    ):
        build(name)(torch.randn(shape).double())
