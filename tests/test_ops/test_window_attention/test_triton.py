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
    ((2, 5, 9), 1, 12, 4, 2),  # padded on both sides, then rolled
    ((1, 9, 5), 3, 8, 4, 1),
    ((1, 9, 4), 1, 8, 4, 1),  # one window is as wide as the map: not rolled
    ((1, 3, 2), 2, 16, 7, 0),  # smaller than a window
    ((1, 9, 13), 1, 16, 8, 5),
    ((1, 4, 5), 1, 8, 1, 0),
]


def call_with(num_heads, window_size, shift, scale=None):
    def call(qkv, table, padding, impl):
        bias = relative_position_bias(table, window_size)
        return window_attention(
            qkv, num_heads, window_size, shift, bias, padding, scale, impl
        )

    return call


def inputs(size, heads, channels, window):
    return [
        torch.randn(*size, 3 * heads * channels),
        torch.randn((2 * window - 1) ** 2, heads),
        torch.randn(3 * heads * channels),
    ]


@pytest.mark.parametrize('size, heads, channels, window, shift', CASES)
def test_float32(
    check_against_definition, size, heads, channels, window, shift
):
    tensors = inputs(size, heads, channels, window)
    call = call_with(heads, window, shift)
    if size[1] % window == size[2] % window == 0:  # no padding, no gradient
        padding = tensors.pop()

        def call(qkv, table, impl):
            return call_with(heads, window, shift)(
                qkv, table, padding.to(qkv), impl
            )

    check_against_definition(call, tensors, torch.float32)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('scale', [None, 1.0])
def test_half_precision(check_against_definition, dtype, scale):
    tensors = inputs((1, 5, 9), 2, 24, 4)
    check_against_definition(call_with(2, 4, 2, scale), tensors, dtype)


@pytest.mark.parametrize('shift', [0, 2])
def test_without_bias_and_with_padding_of_zeros(
    check_against_definition, shift
):
    def call(qkv, impl):
        return window_attention(qkv, 2, 4, shift, impl=impl)

    check_against_definition(
        call, inputs((1, 5, 6), 2, 8, 4)[:1], torch.float32
    )


def test_strides(check_against_definition):
    def lay_out(x):
        if x.ndim != 4:
            return x
        return x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)

    tensors = inputs((1, 5, 6), 2, 8, 4)
    call = call_with(2, 4, 1)
    check_against_definition(call, tensors, torch.float32, stride_as=lay_out)


def test_rows_that_32_bits_do_not_reach(device, spread_out):
    from mmattn.ops.triton_kernels.window_attention import (
        window_attention,
        window_attention_backward,
    )

    qkv = torch.randn(1, 4, 3, 24, device=device).half()
    grad = torch.randn(1, 4, 3, 8, device=device).half()
    options = None, None, 1, 4, 0, 0.5
    far, far_grad = spread_out(qkv, 1), spread_out(grad, 1)
    want = window_attention(qkv, *options)
    assert torch.equal(window_attention(far, *options), want)
    want, *_ = window_attention_backward(grad, qkv, *options)
    got, *_ = window_attention_backward(far_grad, far, *options)
    assert torch.equal(got, want)


def test_a_program_goes_through_many_windows(
    check_against_definition, monkeypatch
):
    from mmattn.ops.triton_kernels import window_attention

    for name in ('_PROGRAMS', '_PROGRAMS_BACKWARD'):
        monkeypatch.setattr(window_attention, name, 2)
    tensors = inputs((2, 5, 6), 1, 8, 4)
    check_against_definition(call_with(1, 4, 1), tensors, torch.float32)


def test_the_kinds_of_numbers_of_mixed_precision(device):
    """A half-precision map, a bias and a padding in float32."""
    qkv, table, padding = inputs((1, 5, 6), 2, 8, 4)
    tensors = [
        x.to(device).requires_grad_() for x in (qkv.bfloat16(), table, padding)
    ]
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
        x.to(device).requires_grad_() for x in inputs((0, 5, 6), 2, 8, 4)
    ]
    out = call_with(2, 4, 1)(*tensors, 'triton')
    assert out.shape == (0, 5, 6, 16)
    for grad in torch.autograd.grad(out.sum(), tensors):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_checkpointing_gives_the_same_gradients(device):
    tensors = [
        x.to(device).requires_grad_() for x in inputs((1, 5, 6), 2, 8, 4)
    ]
    call = call_with(2, 4, 1)
    want = torch.autograd.grad(call(*tensors, 'triton').sum(), tensors)
    out = checkpoint(call, *tensors, 'triton', use_reentrant=False)
    got = torch.autograd.grad(out.sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_operator_keeps_the_rules_of_torch_library(device):
    from mmattn.ops.triton_kernels.window_attention import window_attention

    qkv = torch.randn(1, 3, 2, 12, device=device, requires_grad=True)
    bias = torch.randn(2, 4, 4, device=device, requires_grad=True)
    padding = torch.randn(12, device=device, requires_grad=True)
    for arguments in ((qkv, bias, padding), (qkv.detach(), None, None)):
        torch.library.opcheck(window_attention, (*arguments, 2, 2, 1, 0.5))


def test_compiled_for_all_sizes_at_once(device):
    def attend(qkv, table, padding):
        return call_with(2, 4, 1)(qkv, table, padding, 'triton')

    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(
        attend, fullgraph=True, dynamic=True, backend=counter
    )
    for size in ((3, 5, 6), (3, 4, 9)):
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
