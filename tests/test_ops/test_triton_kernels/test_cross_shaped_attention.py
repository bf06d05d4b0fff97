from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mmattn.ops import cross_shaped_attention

CASES = [  # map, heads, channels, stripe
    ((1, 7, 7), 2, 32, 1),
    ((2, 5, 8), 4, 8, 2),
    ((1, 8, 5), 2, 12, 3),  # padded, more on one side than on the other
    ((1, 2, 3), 2, 16, 7),  # smaller than a stripe
    ((1, 9, 11), 2, 8, 4),
    ((1, 5, 6), 3, 8, None),
    ((1, 10, 9), 1, 24, None),  # more tokens than a program holds
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
def test_float32(check_against_definition, size, heads, channels, stripe):
    check_against_definition(
        call_with(heads, stripe), inputs(size, heads, channels), torch.float32
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(check_against_definition, dtype):
    tensors = inputs((1, 5, 9), 2, 24)
    check_against_definition(call_with(2, 2), tensors, dtype)


def test_without_bias_and_with_a_scale(check_against_definition):
    tensors = inputs((1, 5, 9), 2, 8)[:2]
    check_against_definition(call_with(2, 2, 0.7), tensors, torch.float32)


def test_strides(check_against_definition):
    def lay_out(x):
        if x.shape[-1] != 48:
            return x
        return x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)

    tensors = inputs((1, 5, 6), 2, 8)
    check_against_definition(
        call_with(2, 2), tensors, torch.float32, stride_as=lay_out
    )


def test_rows_that_32_bits_do_not_reach(device, spread_out):
    qkv = torch.randn(1, 4, 3, 24, device=device).half()
    weight = torch.randn(8, 1, 3, 3, device=device).half()
    call = call_with(2, 2)
    want = call(qkv, weight, impl='triton')
    assert torch.equal(call(spread_out(qkv, 1), weight, impl='triton'), want)


def test_no_image(device):
    tensors = [x.to(device).requires_grad_() for x in inputs((0, 5, 6), 2, 8)]
    out = call_with(2, 2)(*tensors, impl='triton')
    assert out.shape == (0, 5, 6, 16)
    for grad in torch.autograd.grad(out.sum(), tensors):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_operator_keeps_the_rules_of_torch_library(device):
    from mmattn.ops.triton_kernels.cross_shaped_attention import (
        cross_shaped_attention,
    )

    qkv, weight, bias = (
        x.to(device).requires_grad_() for x in inputs((1, 3, 2), 2, 4)
    )
    torch.library.opcheck(
        cross_shaped_attention, (qkv, 2, 2, weight, bias, 0.5)
    )


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
        for a, b in zip(got, expected):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1
