"""What a compiler takes as it is where sizes vary."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mmattn.ops import (
    balanced_clusters,
    cluster_attention,
    cross_shaped_attention,
    depthwise_convolution,
    forced_implementations,
    grouped_linear,
    implementations,
    mixed_convolution,
    operators,
    register_implementation,
    sliding_window_attention,
    strided_convolution,
    watch_choices,
    window_attention,
)

pytestmark = pytest.mark.usefixtures('compiler_for_all_sizes')


def attend_windows(qkv, bias, padding):
    return window_attention(qkv, 2, 4, 2, bias, padding)


def attend_sliding_windows(qkv, bias):
    return sliding_window_attention(qkv, 2, 4, 3, bias)


def attend_stripes(qkv, weight, bias):
    return cross_shaped_attention(qkv, 2, 3, weight, bias)


def attend_map(qkv, weight, bias):
    return cross_shaped_attention(qkv, 2, None, weight, bias)


def attend_clusters(qkv):
    tokens = qkv.flatten(1, 2)
    q = tokens[..., :8].unflatten(-1, (2, 4)).transpose(1, 2).flatten(0, 1)
    order = balanced_clusters(q, 5).unflatten(0, (-1, 2))
    return cluster_attention(tokens, order, 5, 2).view(*qkv.shape[:3], 8)


def convolve(x, weight, bias):
    return depthwise_convolution(x, weight, bias, True, True)


def convolve_scales(x, *kernels):
    return mixed_convolution(x, kernels[:2], kernels[2:])


def widen(x, weight, bias):
    return grouped_linear(x, weight, bias, 6, with_gelu=True)


def halve(x, weight, bias):
    x = x.permute(0, 3, 1, 2)
    return strided_convolution(x, weight, bias, (2, 1), (1, 2))


CALLS = {
    attend_windows: [(2, 16, 16), (24,)],
    attend_sliding_windows: [(2, 16, 16)],
    attend_stripes: [(8, 1, 3, 3), (8,)],
    attend_map: [(8, 1, 3, 3), (8,)],
    attend_clusters: [],
    convolve: [(24, 1, 3, 3), (24,)],
    convolve_scales: [(12, 1, 3, 3), (12, 1, 5, 5), (12,), (12,)],
    widen: [(48, 4), (48,)],
    halve: [(5, 24, 3, 3), (5,)],
}
SIZES = [(3, 5), (5, 9), (8, 4), (12, 12), (7, 11)]


def inputs(call, size, dtype=torch.float64):
    shapes = [(3, *size, 24), *CALLS[call]]
    return [
        torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes
    ]


def compile_for_all(call):
    """Compile for maps of all heights and widths."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(call, fullgraph=True, backend=counter)

    def run(qkv, *tensors):
        for axis in (1, 2):
            torch._dynamo.mark_dynamic(qkv, axis)
        return compiled(qkv, *tensors)

    return run, counter


@pytest.mark.parametrize('call', CALLS)
def test_one_graph_for_all_sizes(call):
    compiled, counter = compile_for_all(call)
    for size in SIZES:
        tensors = inputs(call, size)
        # Channels first, as a convolution may leave them.
        tensors[0] = tensors[0].mT.contiguous().mT.detach().requires_grad_()
        out, want = compiled(*tensors), call(*tensors)
        weights = torch.randn_like(want)
        torch.testing.assert_close(out, want, rtol=0, atol=1e-12)
        found, expected = (
            torch.autograd.grad(x, tensors, weights, materialize_grads=True)
            for x in (out, want)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert counter.frame_count == 1


@pytest.mark.parametrize('call', CALLS)
def test_one_graph_for_all_batches(call):
    """Also where PyTorch chooses by the number of images: from 16 on."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(call, fullgraph=True, backend=counter)
    qkv, *others = (x.detach().float() for x in inputs(call, (5, 9)))
    for batch in (2, 7, 20):
        images = qkv[:1].repeat(batch, 1, 1, 1)
        torch._dynamo.mark_dynamic(images, 0)
        out, want = compiled(images, *others), call(images, *others)
        torch.testing.assert_close(out, want, rtol=0, atol=1e-4)
    assert counter.frame_count == 1


@pytest.mark.parametrize('call', CALLS)
def test_autocast_narrows_the_same(call):
    def narrowed(*tensors):
        with torch.autocast('cpu', torch.bfloat16):
            return call(*tensors)

    compiled, _ = compile_for_all(narrowed)
    tensors = [x.detach().float() for x in inputs(call, (7, 11))]
    tensors[0] = tensors[0].bfloat16()
    out, want = compiled(*tensors), narrowed(*tensors)
    assert out.dtype == want.dtype == torch.bfloat16
    torch.testing.assert_close(out, want, rtol=0, atol=2e-2)


def test_gradients_of_what_asks_for_one():
    compiled, _ = compile_for_all(attend_windows)
    qkv, bias, padding = inputs(attend_windows, (5, 9))
    qkv, padding = qkv.detach(), padding.detach()
    grads = [
        torch.autograd.grad(call(qkv, bias, padding).sum(), bias)[0]
        for call in (compiled, attend_windows)
    ]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


def operator(name):
    return getattr(torch.ops.mmattn, f'{name}_for_any_size').default


def test_operators_keep_the_rules_of_torch_library():
    qkv = torch.randn(2, 3, 5, 24, requires_grad=True)
    bias = torch.randn(2, 16, 16, requires_grad=True)
    padding = torch.randn(24, requires_grad=True)
    kernels = torch.randn(8, 1, 3, 3, requires_grad=True)
    order = torch.arange(15).expand(2, 2, 15)
    flat = torch.randn(4 * 9 + 4 * 25 + 8, requires_grad=True)
    x, bias8 = qkv[..., :8], torch.randn(8, requires_grad=True)
    dense = torch.randn(5, 8, 3, 3, requires_grad=True)
    matrices = torch.randn(8, 2, requires_grad=True)
    for name, *args in [
        ('window_attention', qkv, 2, 4, 2, bias, padding, 0.5, 'auto'),
        ('window_attention', qkv.detach(), 2, 4, 2, None, None, 0.5, 'sdpa'),
        ('sliding_window_attention', qkv, 2, 4, 3, bias, 0.5, 'auto'),
        ('cross_shaped_attention', qkv, 2, 3, kernels, None, 0.5, 'auto'),
        ('cluster_attention', qkv.flatten(1, 2), order, 5, 2, 0.5, 'auto'),
        ('balanced_clusters', torch.randn(2, 9, 3), 2, 1, 9.0, 'auto'),
        ('balanced_clusters', torch.randn(2, 3, 3), 2, 1, 9.0, 'auto'),
        ('depthwise_convolution', x, kernels, None, True, True, 'auto'),
        ('mixed_convolution', x, flat, [3, 5], 'auto'),
        ('grouped_linear', x, matrices, bias8, 4, True, 'auto'),
        ('strided_convolution', x, dense, None, [2, 1], [1, 2]),
    ]:
        torch.library.opcheck(operator(name), args)


def test_result_is_never_an_input():
    """A user's implementation may return what it was given."""
    register_implementation('balanced_clusters', 'as_given')(
        lambda features, *args: features[..., 0]
    )
    try:
        features = torch.arange(6, dtype=torch.int64).view(2, 3, 1)
        out = operator('balanced_clusters')(features, 9, 1, 1.0, 'as_given')
        assert torch.equal(out, features[..., 0])
        assert out.data_ptr() != features.data_ptr()
    finally:
        del implementations._TABLE['balanced_clusters']['as_given']


def test_choice_is_that_of_the_call():
    compiled, counter = compile_for_all(attend_windows)
    tensors = inputs(attend_windows, (5, 9))
    chosen = []
    with watch_choices(lambda row: chosen.append((row.operation, row.name))):
        compiled(*tensors)
        with forced_implementations({'window_attention': 'reference'}):
            compiled(*tensors)
    chosen = [name for operation, name in chosen if operation != 'attention']
    assert chosen == ['cpp', 'reference']
    assert counter.frame_count <= 2


def test_a_named_implementation_is_taken():
    def attend(qkv):
        return window_attention(qkv, 2, 4, impl='sdpa')

    compiled, _ = compile_for_all(attend)
    chosen = []
    with watch_choices(lambda row: chosen.append(row.name)):
        compiled(torch.randn(1, 5, 9, 24))
    assert chosen[0] == 'sdpa'


def test_a_size_that_is_known_is_followed():
    """So that the compiler fuses what it reads."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(
        attend_windows, fullgraph=True, dynamic=False, backend=counter
    )
    compiled(*inputs(attend_windows, (5, 9)))
    (graph,) = counter.graphs
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not any('for_any_size' in target for target in targets)


def test_without_custom_operators(monkeypatch):
    monkeypatch.setattr(operators, '_HAS_CUSTOM_OPERATORS', False)
    assert operators.define_operator('none', 'Tensor x', abs) is abs
