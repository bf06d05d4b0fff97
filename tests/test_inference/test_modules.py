"""Fused modules beside the modules they replace."""

import copy

import pytest
import torch
from torch import nn

from mmattn.attentions import MultiHeadSelfAttention, ScaleAwareModulation
from mmattn.inference.modules import (
    FusedConvMLP,
    FusedDepthwiseConv,
    FusedLayerNorm,
    FusedLinear,
    FusedMLP,
    FusedModulation,
    FusedSelfAttention,
)
from mmattn.layers import MLP, ConvMLP
from mmattn.ops import _native, forced_implementations

needs_kernels = pytest.mark.skipif(
    not _native.is_available(), reason='no C++ compiler'
)
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}
# A fused class, the module, the shape of an input, the kernel that runs.
CASES = {
    'linear': (
        FusedLinear,
        lambda: nn.Linear(48, 80),
        (2, 17, 31, 48),
        'linear',
    ),
    'linear without bias': (
        FusedLinear,
        lambda: nn.Linear(144, 16, bias=False),
        (523, 144),
        'linear',
    ),
    'linear of few tokens': (
        FusedLinear,
        lambda: nn.Linear(48, 80),
        (7, 48),
        None,
    ),
    'linear of odd channels': (
        FusedLinear,
        lambda: nn.Linear(13, 21),
        (600, 13),
        None,
    ),
    'large linear': (
        FusedLinear,
        lambda: nn.Linear(528, 1072),
        (1, 29, 19, 528),
        'linear',
    ),
    'layer norm': (
        FusedLayerNorm,
        lambda: random_norm(nn.LayerNorm(144)),
        (3, 5, 7, 144),
        'layer_norm',
    ),
    'layer norm without parameters': (
        FusedLayerNorm,
        lambda: nn.LayerNorm(16, elementwise_affine=False),
        (9, 16),
        'layer_norm',
    ),
    'layer norm of odd channels': (
        FusedLayerNorm,
        lambda: random_norm(nn.LayerNorm(13)),
        (9, 13),
        None,
    ),
    'depthwise': (
        FusedDepthwiseConv,
        lambda: nn.Conv2d(24, 24, 3, padding=1, groups=24),
        (2, 24, 9, 14),
        'depthwise',
    ),
    'depthwise of side 5': (
        FusedDepthwiseConv,
        lambda: nn.Conv2d(7, 7, 5, padding=2, groups=7, bias=False),
        (1, 7, 1, 3),
        'depthwise',
    ),
    'mlp': (FusedMLP, lambda: MLP(48, 96), (2, 17, 31, 48), 'mlp'),
    'mlp of few tokens': (FusedMLP, lambda: MLP(48, 96), (2, 3, 5, 48), None),
    'mlp of odd channels': (FusedMLP, lambda: MLP(15, 33), (700, 15), None),
    'large mlp': (FusedMLP, lambda: MLP(272, 1072), (521, 272), 'mlp'),
    'conv mlp': (
        FusedConvMLP,
        lambda: ConvMLP(24, 96),
        (3, 17, 23, 24),
        'depthwise',
    ),
    'conv mlp in pieces': (
        FusedConvMLP,
        lambda: ConvMLP(8, 1024),
        (3, 40, 41, 8),
        'depthwise',
    ),
    'conv mlp of few tokens': (
        FusedConvMLP,
        lambda: ConvMLP(15, 33),
        (1, 2, 3, 15),
        'depthwise',
    ),
    'self-attention': (
        FusedSelfAttention,
        lambda: MultiHeadSelfAttention(24, 3),
        (2, 5, 9, 24),
        'attend',
    ),
    'modulation': (
        FusedModulation,
        lambda: random_modulation(24, 4),
        (2, 17, 23, 24),
        'modulation',
    ),
    'modulation of 3 heads': (
        FusedModulation,
        lambda: random_modulation(21, 3),
        (1, 5, 4, 21),
        'modulation',
    ),
    'modulation with a plain norm': (
        FusedModulation,
        lambda: random_modulation(24, 2, affine=False),
        (1, 12, 9, 24),
        'modulation',
    ),
}


def random_norm(norm):
    for x in (*norm.parameters(), *norm.buffers()):
        if x.is_floating_point():
            nn.init.uniform_(x, 0.5, 2)
    return norm


def random_modulation(channels, heads, affine=True):
    layer = ScaleAwareModulation(channels, heads)
    layer.norm = random_norm(nn.BatchNorm2d(2 * channels, affine=affine))
    return layer


@pytest.fixture(params=CASES)
def case(request):
    """A fused class, a module in float64, and an input in float64."""
    fused, build, shape, _ = CASES[request.param]
    torch.manual_seed(0)
    module = build().double().eval().requires_grad_(False)
    return fused, module, torch.randn(shape).double()


def fuse(kind, module):
    fused = kind.fuse(copy.deepcopy(module))
    assert type(fused) is kind
    return fused


def channels_last(kind, x):
    if kind is FusedDepthwiseConv:
        return x.contiguous(memory_format=torch.channels_last)
    return x


@needs_kernels
@pytest.mark.parametrize('dtype', CLOSE)
def test_equals_the_module(case, dtype):
    kind, module, x = case
    want = module(x)
    x = channels_last(kind, x.to(dtype))
    got = fuse(kind, module.to(dtype))(x)
    assert got.dtype == dtype
    close = CLOSE[dtype]
    torch.testing.assert_close(got.double(), want, rtol=close, atol=close)


@needs_kernels
@pytest.mark.parametrize('name', CASES)
def test_runs_its_kernel(name):
    kind, build, shape, kernel = CASES[name]
    fused, x = (
        fuse(kind, build().eval()),
        channels_last(kind, torch.rand(shape)),
    )
    with torch.no_grad(), torch.profiler.profile() as profile:
        fused(x)
    names = {event.name for event in profile.events()}
    if kernel is None:
        assert not any(name.startswith('mmattn::') for name in names)
    else:
        assert f'mmattn::{kernel}' in names


def test_takes_any_layout(case):
    kind, module, x = case
    if x.ndim < 3:
        pytest.skip('only maps are permuted')
    want = module(x)
    fused = fuse(kind, module)
    strange = x.permute(*reversed(range(x.ndim))).contiguous()
    strange = strange.permute(*reversed(range(x.ndim)))
    wide = torch.cat([x, x], dim=-1)[..., : x.shape[-1]]
    for same in (strange, wide, x.expand(1, *x.shape)[0]):
        torch.testing.assert_close(fused(same), want, rtol=0, atol=1e-12)


def test_takes_an_empty_batch(case):
    kind, module, x = case
    want = module(x[:0])
    assert fuse(kind, module)(x[:0]).shape == want.shape


def test_wrong_shapes_are_errors_of_pytorch(case):
    kind, module, x = case
    fused = fuse(kind, module)
    with pytest.raises(RuntimeError):
        fused(torch.cat([x] * 2, 1 if kind is FusedDepthwiseConv else -1))


def test_gradients_of_the_input(case):
    kind, module, x = case
    grads = []
    for layer in (module, fuse(kind, module)):
        own = x.clone().requires_grad_()
        layer(own).square().sum().backward()
        grads.append(own.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-10)


def test_autocast_is_obeyed(case):
    kind, module, x = case
    if kind in (FusedModulation, FusedConvMLP):
        pytest.skip('folded weights round in another way')
    fused = fuse(kind, module.float())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        want, got = module(x.float()), fused(x.float())
    assert got.dtype == want.dtype
    assert torch.equal(got, want)


def test_tracing_records_plain_operations(case):
    kind, module, x = case
    fused = fuse(kind, module)
    traced = torch.jit.trace(fused, x)
    torch.testing.assert_close(traced(2 * x), module(2 * x))
    compiled = torch.compile(fused, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x))


def test_runs_on_other_devices(case):
    kind, module, x = case
    if kind is FusedSelfAttention:
        pytest.skip('attention chooses by device, and takes no meta tensors')
    fused = fuse(kind, module).to('meta')
    assert fused(x.to('meta')).shape == module(x).shape


def test_has_no_training_mode(case):
    fused = fuse(*case[:2])
    assert fused.train(False) is fused
    with pytest.raises(RuntimeError, match='optimize_for_inference'):
        fused.train()
    assert not fused.training


def test_survives_copies_and_state_dicts(case):
    kind, module, x = case
    fused = fuse(kind, module)
    twin = copy.deepcopy(fused)
    for parameter in twin.parameters():
        parameter.zero_()
    twin.load_state_dict(fused.state_dict())
    assert torch.equal(twin(x), fused(x))


# Overflow. PyTorch's own results say where: it must not be hidden.


@needs_kernels
@pytest.mark.parametrize(
    'value', [1e20, 1e30, torch.inf, -torch.inf, torch.nan]
)
def test_overflow_is_not_hidden(case, value):
    kind, module, x = case
    module, x = module.float(), channels_last(kind, x.float())
    tensors = (x, *module.parameters(), *module.buffers())
    for tensor in filter(torch.is_floating_point, tensors):
        for step in (1, 35):
            saved = tensor.clone()
            tensor.as_strided((tensor.numel(),), (1,))[::step] = value
            with forced_implementations({'attention': 'reference'}):
                want = module(x)
            got = fuse(kind, module)(x)
            assert not (got.isfinite() & ~want.isfinite()).any()
            tensor.copy_(saved)


LARGE = (1e15, 1e18, 1.5e19, 2e19, 1e20, 1e30, 1.8e38, 3e38)


@needs_kernels
@pytest.mark.parametrize('large', LARGE)
def test_layer_norm_hides_no_overflow(large):
    torch.manual_seed(0)
    x = torch.randn(5, 16, 64)
    x[0] = large
    x[1, :, ::2], x[1, :, 1::2] = large, -large
    x[2] *= large / x[2].abs().max()
    x[3, :, 5] = large
    x[4, :, :8] = large
    norm = nn.LayerNorm(64)
    with torch.no_grad():
        want = norm(x)
        got = fuse(FusedLayerNorm, norm)(x)
    assert not (got.isfinite() & ~want.isfinite()).any()
    if large <= 1e18:
        # PyTorch 2.1 rounds the mean of large equal numbers.
        exact = norm.double()(x.double() - x[..., :1]).float()
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize('sign', [-1, 1])
@pytest.mark.parametrize('large', [*LARGE, float('inf'), float('nan')])
@pytest.mark.parametrize('kind', [FusedMLP, FusedConvMLP])
def test_gelu_hides_no_overflow(kind, large, sign):
    module = {FusedMLP: MLP, FusedConvMLP: ConvMLP}[kind](8, 16)
    with torch.no_grad():
        for x in module.parameters():
            x.zero_()
        module.fc1.bias.fill_(sign * large)
        module.fc2.weight.fill_(2**-6)
        x = torch.zeros(1, 32, 32, 8)
        want, got = module(x), fuse(kind, module)(x)
    assert not (got.isfinite() & ~want.isfinite()).any()
    finite = want.isfinite()
    torch.testing.assert_close(got[finite], want[finite])


@needs_kernels
@pytest.mark.parametrize('bias', [-3e38, 0.0, 3e38])
def test_linear_hides_no_overflow(bias):
    layer = nn.Linear(8, 8)
    with torch.no_grad():
        layer.weight.fill_(1e19)
        layer.bias.fill_(bias)
        x = torch.linspace(-1e19, 1e19, 1024)[:, None].expand(-1, 8)
        want, got = layer(x), fuse(FusedLinear, layer)(x)
    assert not (got.isfinite() & ~want.isfinite()).any()
    assert not got.isfinite().all()
