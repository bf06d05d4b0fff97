import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from mmattn.ops import (
    relative_position_bias,
    window_attention,
)

CASES = [  # map, heads, channels, window, shift
    ((1, 7, 7), 1, 32, 7, 0),
    ((1, 14, 7), 2, 24, 7, 0),
    ((2, 8, 12), 1, 12, 4, 2),
    ((1, 12, 8), 3, 8, 4, 1),
    ((1, 12, 4), 1, 8, 4, 1),  # one window is as wide as the map: not rolled
    ((1, 16, 24), 1, 16, 8, 5),
    ((1, 4, 5), 1, 8, 1, 0),
]


def call_with(num_heads, window_size, shift, scale=None):
    def call(qkv, table, impl):
        bias = relative_position_bias(table, window_size)
        return window_attention(
            qkv, num_heads, window_size, shift, bias, scale, impl
        )

    return call


def inputs(size, heads, channels, window):
    return [
        torch.randn(*size, 3 * heads * channels),
        torch.randn((2 * window - 1) ** 2, heads),
    ]


@pytest.mark.parametrize('size, heads, channels, window, shift', CASES)
def test_float32(
    check_against_reference, size, heads, channels, window, shift
):
    tensors = inputs(size, heads, channels, window)
    call = call_with(heads, window, shift)
    check_against_reference(call, tensors, torch.float32)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('scale', [None, 1.0])
def test_half_precision(check_against_reference, dtype, scale):
    tensors = inputs((1, 8, 12), 2, 24, 4)
    check_against_reference(call_with(2, 4, 2, scale), tensors, dtype)


@pytest.mark.parametrize('shift', [0, 2])
def test_without_bias(check_against_reference, shift):
    def call(qkv, impl):
        return window_attention(qkv, 2, 4, shift, impl=impl)

    check_against_reference(
        call, inputs((1, 8, 8), 2, 8, 4)[:1], torch.float32
    )


def test_strides(check_against_reference):
    def lay_out(x):
        if x.ndim != 4:
            return x
        return x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)

    tensors = inputs((1, 8, 8), 2, 8, 4)
    call = call_with(2, 4, 1)
    check_against_reference(call, tensors, torch.float32, stride_as=lay_out)


def test_rows_that_32_bits_do_not_reach(device, spread_out):
    from mmattn.ops.window_attention.triton import backward, forward

    qkv = torch.randn(1, 4, 4, 24, device=device).half()
    grad = torch.randn(1, 4, 4, 8, device=device).half()
    options = 1, 4, 0, None, 0.5
    far, far_grad = spread_out(qkv, 1), spread_out(grad, 1)
    assert torch.equal(*forward(far, *options), *forward(qkv, *options))
    want, _ = backward(grad, [], [True, False], qkv, *options)
    got, _ = backward(far_grad, [], [True, False], far, *options)
    assert torch.equal(got, want)


def test_a_program_goes_through_many_windows(
    check_against_reference, monkeypatch
):
    from mmattn.ops.window_attention import triton

    for name in ('_PROGRAMS', '_PROGRAMS_BACKWARD'):
        monkeypatch.setattr(triton, name, 2)
    tensors = inputs((2, 8, 8), 1, 8, 4)
    check_against_reference(call_with(1, 4, 1), tensors, torch.float32)


def test_the_kinds_of_numbers_of_mixed_precision(device):
    """A half-precision map, a bias in float32."""
    qkv, table = inputs((1, 8, 8), 2, 8, 4)
    tensors = [x.to(device).requires_grad_() for x in (qkv.bfloat16(), table)]
    call, results = call_with(2, 4, 1), {}
    for impl in ('reference', 'triton'):
        out = call(*tensors, impl)
        grads = torch.autograd.grad(out.float().square().sum(), tensors)
        results[impl] = [out, *grads]
        assert [x.dtype for x in grads] == [x.dtype for x in tensors]
    for got, want in zip(results['triton'], results['reference']):
        scale = want.float().abs().max().item()
        torch.testing.assert_close(got, want, rtol=0, atol=2e-2 * scale)


def test_no_image(device):
    tensors = [
        x.to(device).requires_grad_() for x in inputs((0, 8, 8), 2, 8, 4)
    ]
    out = call_with(2, 4, 1)(*tensors, 'triton')
    assert out.shape == (0, 8, 8, 16)
    for grad in torch.autograd.grad(out.sum(), tensors):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_checkpointing_gives_the_same_gradients(device):
    tensors = [
        x.to(device).requires_grad_() for x in inputs((1, 8, 8), 2, 8, 4)
    ]
    call = call_with(2, 4, 1)
    want = torch.autograd.grad(call(*tensors, 'triton').sum(), tensors)
    out = checkpoint(call, *tensors, 'triton', use_reentrant=False)
    got = torch.autograd.grad(out.sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_operator_keeps_the_rules_of_torch_library(device):
    qkv = torch.randn(1, 4, 2, 12, device=device, requires_grad=True)
    bias = torch.randn(2, 4, 4, device=device, requires_grad=True)
    operator = torch.ops.mmattn.window_attention_triton.default
    torch.library.opcheck(operator, (qkv, 2, 2, 1, bias, 0.5))
    torch.library.opcheck(operator, (qkv.detach(), 2, 2, 1, None, 0.5))


def test_compiled_for_all_sizes_at_once(device):
    def attend(qkv, table):
        return call_with(2, 4, 1)(qkv, table, 'triton')

    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(
        attend, fullgraph=True, dynamic=True, backend=counter
    )
    for size in ((3, 8, 12), (3, 4, 16)):
        tensors = [
            x.to(device).requires_grad_() for x in inputs(size, 2, 10, 4)
        ]
        out, want = compiled(*tensors), attend(*tensors)
        assert torch.equal(out, want)
        weights = torch.randn_like(out)
        got = torch.autograd.grad(out, tensors, weights)
        expected = torch.autograd.grad(want, tensors, weights)
        assert all(torch.equal(a, b) for a, b in zip(got, expected))
    assert counter.frame_count == 1
