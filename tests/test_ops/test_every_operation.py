"""What holds for all operations that have kernels, checked for each."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.flop_counter import FlopCounterMode

from mmattn.ops import (
    balanced_clusters,
    cluster_attention,
    cross_shaped_attention,
    forced_implementations,
    mixed_convolution,
    sliding_window_attention,
    watch_choices,
    window_attention,
)
from mmattn.ops._native import is_available

OPERATIONS = (
    'window_attention',
    'sliding_window_attention',
    'cross_shaped_attention',
    'cluster_attention',
    'balanced_clusters',
    'mixed_convolution',
)
pytestmark = pytest.mark.skipif(
    not is_available(), reason='there is no C++ compiler'
)


def attend_windows(qkv, bias, impl='auto'):
    return window_attention(qkv, 2, 2, 1, bias, impl=impl)


def attend_sliding_windows(qkv, bias, impl='auto'):
    return sliding_window_attention(qkv, 2, 4, 3, bias, impl=impl)


def attend_stripes(qkv, weight, bias, impl='auto'):
    return cross_shaped_attention(qkv, 2, 3, weight, bias, impl=impl)


def attend_map(qkv, weight, bias, impl='auto'):
    return cross_shaped_attention(qkv, 2, None, weight, bias, impl=impl)


def attend_clusters(qkv, impl='auto'):
    tokens = qkv.flatten(1, 2)
    q = tokens[..., :8].unflatten(-1, (2, 4)).transpose(1, 2)
    order = balanced_clusters(q, 5, impl=impl)
    out = cluster_attention(tokens, order, 5, 2, impl=impl)
    return out.view(*qkv.shape[:3], 8)


def convolve(x, *kernels, impl='auto'):
    return mixed_convolution(x, kernels[:2], kernels[2:], impl)


# Calls, and the shapes of the tensors beside the map.
CALLS = {
    attend_windows: [(2, 4, 4)],
    attend_sliding_windows: [(2, 16, 16)],
    attend_stripes: [(8, 1, 3, 3), (8,)],
    attend_map: [(8, 1, 3, 3), (8,)],
    attend_clusters: [],
    convolve: [(12, 1, 3, 3), (12, 1, 5, 5), (12,), (12,)],
}
every_call = pytest.mark.parametrize('call', CALLS, ids=lambda x: x.__name__)
SIZES = [(4, 6), (6, 10), (8, 4), (12, 12), (2, 14)]


def inputs(call, size=(4, 6), batch=3, dtype=torch.float64):
    shapes = [(batch, *size, 24), *CALLS.get(call, [])]
    return [
        torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes
    ]


def assert_equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


# torch.compile


def compile_counting(call, **options):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(call, fullgraph=True, backend=counter, **options)
    return compiled, counter


@pytest.mark.usefixtures('compiler_for_all_sizes')
@every_call
def test_compiled_once_for_all_sizes(call):
    """A compiler sees the operator of the best implementation."""
    compiled, counter = compile_counting(call)
    for size in SIZES:
        tensors = inputs(call, size)
        # Channels first, as a convolution may leave them.
        tensors[0] = tensors[0].mT.contiguous().mT.detach().requires_grad_()
        for axis in (1, 2):
            torch._dynamo.mark_dynamic(tensors[0], axis)
        out, want = compiled(*tensors), call(*tensors)
        assert_equal(out, want)
        weights = torch.randn_like(want)
        found, expected = (
            torch.autograd.grad(x, tensors, weights) for x in (out, want)
        )
        for a, b in zip(found, expected, strict=True):
            assert_equal(a, b)
    assert counter.frame_count == 1
    targets = {str(node.target) for node in counter.graphs[0].graph.nodes}
    assert any(target.endswith('_cpp.default') for target in targets)


@pytest.mark.usefixtures('compiler_for_all_sizes')
@every_call
def test_compiled_once_for_all_batches(call):
    compiled, counter = compile_counting(call)
    qkv, *others = (x.detach().float() for x in inputs(call))
    for batch in (2, 7, 20):
        images = qkv[:1].repeat(batch, 1, 1, 1)
        torch._dynamo.mark_dynamic(images, 0)
        out, want = compiled(images, *others), call(images, *others)
        torch.testing.assert_close(out, want, rtol=0, atol=1e-4)
    assert counter.frame_count == 1


@pytest.mark.usefixtures('compiler')
@every_call
def test_compiled_under_autocast(call):
    def narrowed(*tensors):
        with torch.autocast('cpu', torch.bfloat16):
            return call(*tensors)

    compiled, _ = compile_counting(narrowed)
    tensors = [x.detach().float() for x in inputs(call)]
    tensors[0] = tensors[0].bfloat16()
    out, want = compiled(*tensors), narrowed(*tensors)
    assert out.dtype == want.dtype == torch.bfloat16
    torch.testing.assert_close(out, want, rtol=0, atol=4e-2)


@pytest.mark.usefixtures('compiler')
@pytest.mark.parametrize('impl', ['reference', 'sdpa'])
@every_call
def test_compiled_plain_torch(call, impl):
    tensors = inputs(call)
    compiled, counter = compile_counting(lambda *x: call(*x, impl=impl))
    assert_equal(compiled(*tensors), call(*tensors, impl='reference'))
    (graph,) = counter.graphs
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not any('mmattn' in target for target in targets)


@pytest.mark.usefixtures('compiler')
def test_choice_is_made_anew_where_another_is_forced():
    compiled, counter = compile_counting(attend_windows)
    tensors = inputs(attend_windows)
    want = compiled(*tensors)
    with forced_implementations({'window_attention': 'reference'}):
        assert_equal(compiled(*tensors), want)
    assert counter.frame_count == 2


def test_operators_keep_the_rules_of_torch_library():
    if not hasattr(torch.library, 'opcheck'):
        pytest.skip('needs torch 2.4')
    qkv = torch.randn(2, 4, 6, 24, requires_grad=True)
    bias = torch.randn(2, 4, 4, requires_grad=True)
    wide = torch.randn(2, 16, 16, requires_grad=True)
    lepe = torch.randn(8, 1, 3, 3, requires_grad=True)
    lepe_bias = torch.randn(8, requires_grad=True)
    order = torch.arange(24).expand(2, 2, 24)
    flat = torch.randn(4 * 9 + 4 * 25, requires_grad=True)
    for name, *args in [
        ('window_attention', qkv, 2, 2, 1, bias, 0.5),
        ('window_attention', qkv.detach(), 2, 2, 1, None, 0.5),
        ('sliding_window_attention', qkv, 2, 4, 3, wide, 0.5),
        ('cross_shaped_attention', qkv, 2, 3, lepe, None, 0.5),
        ('cross_shaped_attention', qkv, 2, None, lepe, lepe_bias, 0.5),
        ('cluster_attention', qkv.flatten(1, 2), order, 5, 2, 0.5),
        ('balanced_clusters', torch.randn(2, 9, 3), 2, 1, 9.0),
        ('mixed_convolution', qkv[..., :8], flat, lepe_bias, [3, 5]),
    ]:
        operator = getattr(torch.ops.mmattn, f'{name}_cpp').default
        torch.library.opcheck(operator, args)


# What follows single operations of PyTorch


@pytest.mark.usefixtures('compiler')
@pytest.mark.parametrize('strict', [False, True])
@every_call
def test_exported(call, strict):
    class Layer(torch.nn.Module):
        def forward(self, *tensors):
            return call(*tensors)

    tensors = tuple(x.detach() for x in inputs(call))
    program = torch.export.export(Layer(), tensors, strict=strict)
    assert 'mmattn' not in str(program.graph)
    assert_equal(program.module()(*tensors), call(*tensors))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@every_call
def test_traced(call):
    tensors = tuple(x.detach() for x in inputs(call))
    traced = torch.jit.trace(call, tensors, check_trace=False)
    assert 'mmattn::' not in str(traced.graph)
    others = tuple(x.detach() for x in inputs(call))
    assert_equal(traced(*others), call(*others))


@every_call
def test_transforms(call):
    maps, *others = (x.detach() for x in inputs(call))
    maps = maps[:, None]
    found = torch.vmap(lambda x: call(x, *others))(maps)
    assert_equal(found, torch.stack([call(x, *others) for x in maps]))
    grads = torch.func.grad(lambda x: call(x, *others).square().sum())(maps[0])
    x = maps[0].clone().requires_grad_()
    assert_equal(
        grads, torch.autograd.grad(call(x, *others).square().sum(), x)[0]
    )


@every_call
def test_forward_mode_derivatives(call):
    """They would be zero if an operator hid what depends on the map."""
    x, *others = (x.detach() for x in inputs(call))
    tangent = torch.randn_like(x)
    _, found = torch.func.jvp(lambda x: call(x, *others), (x,), (tangent,))
    step = 1e-6
    want = call(x + step * tangent, *others) - call(
        x - step * tangent, *others
    )
    want = want / (2 * step)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        out = call(dual, *others)
        assert_equal(torch.autograd.forward_ad.unpack_dual(out).tangent, found)


@every_call
def test_modes_see_operations_of_pytorch(call):
    tensors = [x.detach() for x in inputs(call)]
    chosen = []
    with (
        FlopCounterMode(display=False) as counter,
        watch_choices(lambda x: chosen.append(x)),
    ):
        out = call(*tensors)
    assert_equal(out, call(*tensors))
    assert counter.get_total_flops() > 0
    assert {x.name for x in chosen} == {'reference'}


@every_call
def test_named_kernels_do_not_fall_back(call):
    x, *others = (x.detach() for x in inputs(call))
    with pytest.raises(RuntimeError, match="'cpp'.*torch.func"):
        torch.vmap(lambda x: call(x[None], *others, impl='cpp'))(x)


def test_subclasses_take_plain_torch():
    class Marked(torch.Tensor):
        pass

    qkv, bias = (x.detach() for x in inputs(attend_windows))
    chosen = []
    with watch_choices(lambda x: chosen.append(x.name)):
        out = attend_windows(qkv.as_subclass(Marked), bias)
    assert isinstance(out, Marked)
    assert chosen == ['sdpa']


# Gradients of gradients


@every_call
def test_gradients_of_gradients(call):
    tensors = inputs(call, size=(2, 4), batch=1)
    found = []
    for impl in ('cpp', 'reference'):
        out = call(*tensors, impl=impl)
        grads = torch.autograd.grad(
            out.square().sum(), tensors, create_graph=True
        )
        penalty = sum(x.square().sum() for x in grads)
        found.append([*grads, *torch.autograd.grad(penalty, tensors)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@every_call
def test_batches_of_gradients(call):
    tensors = inputs(call, size=(2, 4))
    found = []
    for impl in ('cpp', 'reference'):
        out = call(*tensors, impl=impl)
        torch.manual_seed(1)
        grads = torch.randn(2, *out.shape, dtype=out.dtype)
        found.append(
            torch.autograd.grad(out, tensors, grads, is_grads_batched=True)
        )
    for a, b in zip(*found, strict=True):
        assert_equal(a, b)


@every_call
def test_gradients_of_what_needs_one(call):
    tensors = inputs(call)
    for needed in range(len(tensors)):
        found = []
        for impl in ('cpp', 'reference'):
            args = [
                x.detach().requires_grad_(i == needed)
                for i, x in enumerate(tensors)
            ]
            call(*args, impl=impl).square().sum().backward()
            assert all(
                (x.grad is None) == (i != needed) for i, x in enumerate(args)
            )
            found.append(args[needed].grad)
        assert_equal(*found)


# Overflow


def attend_given_clusters(qkv, impl='auto'):
    """Overflow may end in other clusters, so that results differ."""
    tokens = qkv.flatten(1, 2)
    order = torch.arange(tokens.shape[1]).expand(len(qkv), 2, -1)
    return cluster_attention(tokens, order, 5, 2, impl=impl)


@pytest.mark.parametrize('step', [1, 35, 600])
@pytest.mark.parametrize(
    'value', [1e20, 1e30, torch.inf, -torch.inf, torch.nan]
)
@every_call
def test_overflow_is_not_hidden(call, value, step):
    """Where the reference gives no finite number, the kernel gives none.

    Sums that only just overflow are no matter here: they do so in one order
    of summation and not in another.
    """
    if call is attend_clusters:
        call = attend_given_clusters
    tensors = inputs(call, dtype=torch.float32)
    for place in range(len(tensors)):
        args = [x.detach().clone() for x in tensors]
        args[place].view(-1)[::step] = value
        args = [x.requires_grad_() for x in args]
        results = []
        for impl in ('reference', 'cpp'):
            out = call(*args, impl=impl)
            results.append([out, *torch.autograd.grad(out.sum(), args)])
        for want, found in zip(*results):
            assert not found[~want.isfinite()].isfinite().any()


# ONNX


@pytest.mark.filterwarnings('ignore')
@every_call
def test_references_export_to_onnx(call, tmp_path):
    """With standard operators alone, and with the same result."""
    pytest.importorskip('onnxscript')
    onnxruntime = pytest.importorskip('onnxruntime')

    class Layer(torch.nn.Module):
        def forward(self, *tensors):
            return call(*tensors, impl='reference')

    tensors = tuple(
        x.detach() for x in inputs(call, (6, 10), dtype=torch.float32)
    )
    program = torch.onnx.export(Layer(), tensors, dynamo=True, verbose=False)
    assert {node.domain for node in program.model.graph} <= {''}
    program.save(tmp_path / 'layer.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'layer.onnx')
    feed = {
        x.name: tensor.numpy()
        for x, tensor in zip(session.get_inputs(), tensors, strict=True)
    }
    (found,) = session.run(None, feed)
    torch.testing.assert_close(
        torch.from_numpy(found),
        call(*tensors, impl='reference'),
        rtol=1e-4,
        atol=1e-4,
    )


def test_every_operation_with_kernels_is_here():
    from mmattn.ops import list_implementations

    kernels = {x.operation for x in list_implementations() if x.is_kernel}
    assert kernels == set(OPERATIONS)
