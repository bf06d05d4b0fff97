import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from mmattn.ops import cluster_attention

SIZES = [  # images, heads, tokens, channels, cluster_size, overlap
    (1, 1, 30, 16, 49, 20),  # one cluster
    (1, 2, 98, 12, 49, 20),
    (2, 1, 54, 32, 8, 3),  # clusters of 13 and 14
    (1, 1, 54, 24, 8, 8),  # all of the sibling, which has one token less
    (1, 3, 29, 8, 5, 0),
    (2, 1, 7, 8, 1, 1),
    (1, 1, 75, 16, 75, 20),  # more queries than a tile holds
]


def inputs(B, h, N, d):
    order = [[torch.randperm(N) for _ in range(h)] for _ in range(B)]
    return torch.randn(B, N, 3 * h * d), torch.stack(
        [*map(torch.stack, order)]
    )


def call_with(order, *sizes):
    def call(qkv, impl):
        order_there = order.to(qkv.device)
        return cluster_attention(qkv, order_there, *sizes, impl=impl)

    return call


@pytest.mark.parametrize('B, h, N, d, cluster_size, overlap', SIZES)
def test_float32(check_against_reference, B, h, N, d, cluster_size, overlap):
    qkv, order = inputs(B, h, N, d)
    call = call_with(order, cluster_size, overlap)
    check_against_reference(call, [qkv], torch.float32)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('N, scale', [(29, None), (61, 1.0)])
def test_half_precision(check_against_reference, N, scale, dtype):
    qkv, order = inputs(1, 2, N, 24)
    call = call_with(order, 13, 5, scale)
    check_against_reference(call, [qkv], dtype)


@pytest.mark.parametrize('axes', [(2, 0, 1), (1, 0, 2), (1, 2, 0)])
def test_strides(check_against_reference, axes):
    def lay_out(x):
        back = [axes.index(i) for i in range(3)]
        return x.permute(axes).contiguous().permute(back)

    qkv, order = inputs(2, 2, 9, 8)
    call = call_with(lay_out(order), 4, 2)
    check_against_reference(call, [qkv], torch.float32, stride_as=lay_out)


def test_clusters_shared_by_the_heads(check_against_reference):
    qkv, order = inputs(2, 1, 9, 16)
    call = call_with(order.expand(-1, 2, -1), 4, 2)
    check_against_reference(call, [qkv], torch.float32)


def test_a_gradient_that_is_one_number(device):
    qkv, order = inputs(1, 2, 9, 8)
    qkv = qkv.to(device).requires_grad_()
    call = call_with(order, 4, 2)
    grads = [
        torch.autograd.grad(call(qkv, impl).sum(), qkv)[0]
        for impl in ('reference', 'triton')
    ]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


def test_no_image(device):
    qkv = torch.empty(0, 21, 24, device=device, requires_grad=True)
    order = torch.empty(0, 2, 21, dtype=torch.int64, device=device)
    out = cluster_attention(qkv, order, impl='triton')
    assert out.shape == (0, 21, 8)
    assert torch.autograd.grad(out.sum(), qkv)[0].shape == qkv.shape


def test_autocast_does_not_narrow(device):
    qkv, order = inputs(1, 2, 9, 8)
    call = call_with(order, 4, 2)
    with torch.autocast(device.type, torch.bfloat16):
        out = call(qkv.to(device), 'triton')
    assert out.dtype == torch.float32
    assert torch.equal(out, call(qkv.to(device), 'triton'))


def test_checkpointing_gives_the_same_gradient(device):
    qkv, order = inputs(1, 2, 9, 8)
    qkv = qkv.to(device).requires_grad_()
    call = call_with(order, 4, 2)
    want = torch.autograd.grad(call(qkv, 'triton').sum(), qkv)
    out = checkpoint(call, qkv, 'triton', use_reentrant=False)
    assert torch.equal(*torch.autograd.grad(out.sum(), qkv), *want)


def test_tokens_that_32_bits_do_not_reach(device, spread_out):
    from mmattn.ops.cluster_attention.triton import backward, forward

    qkv = torch.randn(1, 4, 24, device=device).half()
    grad = torch.randn(1, 4, 8, device=device).half()
    options = torch.tensor([[[2, 0, 3, 1]]], device=device), 2, 1, 0.5
    far, far_grad = spread_out(qkv, 1), spread_out(grad, 1)
    want, *kept = forward(qkv, *options)
    assert torch.equal(forward(far, *options)[0], want)
    want, _ = backward(grad, kept, [True, False], qkv, *options)
    got, _ = backward(far_grad, kept, [True, False], far, *options)
    assert torch.equal(got, want)


def test_operator_keeps_the_rules_of_torch_library(device):
    qkv, order = (x.to(device) for x in inputs(1, 2, 8, 4))
    operator = torch.ops.mmattn.cluster_attention_triton.default
    for needs_gradient in (False, True):
        qkv = qkv.detach().requires_grad_(needs_gradient)
        torch.library.opcheck(operator, (qkv, order, 4, 2, 0.5))


def test_compiled_for_all_sizes_at_once(device):
    def attend(qkv, order):
        return cluster_attention(qkv, order, 5, 2, impl='triton')

    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(
        attend, fullgraph=True, dynamic=True, backend=counter
    )
    for N in (9, 13, 17):
        qkv, order = (x.to(device) for x in inputs(1, 2, N, 8))
        qkv.requires_grad_()
        out, want = compiled(qkv, order), attend(qkv, order)
        assert torch.equal(out, want)
        weights = torch.randn_like(out)
        (got,) = torch.autograd.grad(out, qkv, weights)
        (expected,) = torch.autograd.grad(want, qkv, weights)
        assert torch.equal(got, expected)
    assert counter.frame_count == 1
