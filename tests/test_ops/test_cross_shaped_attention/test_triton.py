from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from mmattn.ops import cross_shaped_attention

CASES = [  # map, heads, channels, stripe
    ((1, 7, 7), 2, 32, 1),
    ((2, 5, 8), 4, 8, 2),
    ((1, 8, 5), 2, 12, 3),  # padded, more on one side than on the other
    ((1, 2, 3), 2, 16, 7),  # smaller than a stripe
    ((1, 9, 11), 2, 8, 4),
    ((1, 5, 6), 3, 8, None),
    ((1, 10, 9), 1, 24, None),  # more tokens than a program holds
    ((1, 23, 5), 2, 16, 3),  # and so have some stripes, padded
    ((1, 4, 9), 1, 64, None),
    ((1, 3, 4), 1, 128, None),
]


def inputs(size, heads, channels):
    C = heads * channels
    return [
        torch.randn(*size, 3 * C),
        torch.randn(C, 1, 3, 3),
        torch.randn(C),
    ]


def call_with(heads, stripe, scale=None):
    def call(qkv, weight, bias=None, impl='auto'):
        return cross_shaped_attention(
            qkv, heads, stripe, weight, bias, scale, impl
        )

    return call


@pytest.mark.parametrize('size, heads, channels, stripe', CASES)
def test_float32(check_against_reference, size, heads, channels, stripe):
    check_against_reference(
        call_with(heads, stripe), inputs(size, heads, channels), torch.float32
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('stripe, heads', [(2, 2), (None, 1)])
def test_half_precision(check_against_reference, dtype, stripe, heads):
    tensors = inputs((1, 8, 9), heads, 24)
    check_against_reference(call_with(heads, stripe), tensors, dtype)


def test_what_all_values_have_in_common_costs_no_precision(
    check_against_reference,
):
    def call(queries_and_keys, values, weight, impl):
        qkv = torch.cat([queries_and_keys, values], -1)
        return cross_shaped_attention(qkv, 1, None, weight, impl=impl)

    tensors = [torch.randn(1, 10, 9, n) for n in (32, 16)]
    tensors[1] += 8
    weight = torch.randn(16, 1, 3, 3)
    check_against_reference(call, [*tensors, weight], torch.bfloat16)


def test_without_bias_and_with_a_scale(check_against_reference):
    tensors = inputs((1, 5, 9), 2, 8)[:2]
    check_against_reference(call_with(2, 2, 0.7), tensors, torch.float32)


def test_strides(check_against_reference):
    def lay_out(x):
        if x.shape[-1] != 48:
            return x
        return x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)

    tensors = inputs((1, 5, 6), 2, 8)
    check_against_reference(
        call_with(2, 2), tensors, torch.float32, stride_as=lay_out
    )


@pytest.mark.parametrize('stripe', [2, None])
def test_rows_that_32_bits_do_not_reach(device, spread_out, stripe):
    from mmattn.ops.cross_shaped_attention.triton import backward, forward

    H = 4 if stripe else 23
    qkv = torch.randn(1, H, 3, 24, device=device).half()
    weight = torch.randn(8, 1, 3, 3, device=device).half()
    grad = torch.randn(1, H, 3, 8, device=device).half()
    options = 2, stripe, weight, None, 0.5
    far, far_grad = spread_out(qkv, 1), spread_out(grad, 1)
    want, *kept = forward(qkv, *options)
    assert torch.equal(forward(far, *options)[0], want)
    wanted = [True, True, False]
    want = backward(grad, kept, wanted, qkv, *options)
    got = backward(far_grad, kept, wanted, far, *options)
    assert all(torch.equal(a, b) for a, b in zip(got[:2], want[:2]))


def test_the_kinds_of_numbers_of_mixed_precision(device):
    """A half-precision map, a convolution in float32."""
    qkv, weight, bias = inputs((1, 5, 6), 2, 8)
    tensors = [
        x.to(device).requires_grad_() for x in (qkv.bfloat16(), weight, bias)
    ]
    results = {}
    for impl in ('reference', 'triton'):
        with torch.autocast(device.type, torch.bfloat16):
            out = call_with(2, 2)(*tensors, impl)
        grads = torch.autograd.grad(out.float().square().sum(), tensors)
        results[impl] = [out, *grads]
        assert [x.dtype for x in grads] == [x.dtype for x in tensors]
    for got, want in zip(results['triton'], results['reference']):
        scale = want.float().abs().max().item()
        torch.testing.assert_close(got, want, rtol=0, atol=2e-2 * scale)


@pytest.mark.parametrize('stripe, size', [(3, (1, 4, 5)), (None, (1, 9, 8))])
def test_used_twice_and_checkpointed(device, stripe, size):
    tensors = [x.to(device).requires_grad_() for x in inputs(size, 2, 8)]
    call = call_with(2, stripe)
    want = torch.autograd.grad(call(*tensors, 'triton').sum(), tensors)
    out = call(*tensors, 'triton')
    out = out + checkpoint(call, *tensors, 'triton', use_reentrant=False)
    got = torch.autograd.grad(out.sum(), tensors)
    assert all(torch.equal(a, 2 * b) for a, b in zip(got, want))


def test_no_image(device):
    tensors = [x.to(device).requires_grad_() for x in inputs((0, 5, 6), 2, 8)]
    out = call_with(2, 2)(*tensors, impl='triton')
    assert out.shape == (0, 5, 6, 16)
    for grad in torch.autograd.grad(out.sum(), tensors):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_operator_keeps_the_rules_of_torch_library(device):
    qkv, weight, bias = (
        x.to(device).requires_grad_() for x in inputs((1, 3, 2), 2, 4)
    )
    operator = torch.ops.mmattn.cross_shaped_attention_triton.default
    torch.library.opcheck(operator, (qkv, 2, 2, weight, bias, 0.5))
    torch.library.opcheck(operator, (qkv.detach(), 1, None, weight, None, 0.5))


def test_compiled_for_all_sizes_at_once(device):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    call = partial(call_with(2, 2), impl='triton')
    compiled = torch.compile(
        call, fullgraph=True, dynamic=True, backend=counter
    )
    for size in ((3, 5, 6), (3, 4, 9)):
        tensors = [x.to(device).requires_grad_() for x in inputs(size, 2, 10)]
        out, want = compiled(*tensors), call(*tensors)
        assert torch.equal(out, want)
        got, expected = (
            torch.autograd.grad(x.square().sum(), tensors) for x in (out, want)
        )
        assert all(torch.equal(a, b) for a, b in zip(got, expected))
    assert counter.frame_count == 1
