import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from mmattn.ops import cluster_attention

SIZES = [  # problems, tokens, channels, cluster_size, overlap
    (1, 30, 16, 49, 20),  # one cluster
    (2, 98, 12, 49, 20),
    (2, 54, 32, 8, 3),  # clusters of 13 and 14
    (1, 54, 24, 8, 8),  # all of the sibling, which has one token less
    (2, 29, 8, 5, 0),
    (2, 7, 8, 1, 1),
    (1, 75, 16, 75, 20),  # more queries than a tile holds
]


def inputs(G, N, d):
    q, k, v = torch.randn(3, G, N, d)
    return [q, k, v], torch.stack([torch.randperm(N) for _ in range(G)])


def call_with(order, *sizes):
    def call(q, k, v, impl):
        return cluster_attention(
            q, k, v, order.to(q.device), *sizes, impl=impl
        )

    return call


@pytest.mark.parametrize('G, N, d, cluster_size, overlap', SIZES)
def test_float32(check_against_definition, G, N, d, cluster_size, overlap):
    tensors, order = inputs(G, N, d)
    call = call_with(order, cluster_size, overlap)
    check_against_definition(call, tensors, torch.float32)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('N, scale', [(29, None), (61, 1.0)])
def test_half_precision(check_against_definition, N, scale, dtype):
    tensors, order = inputs(2, N, 24)
    call = call_with(order, 13, 5, scale)
    check_against_definition(call, tensors, dtype)


def test_strides(check_against_definition):
    tensors, order = inputs(2, 43, 8)
    order = order.T.contiguous().T
    check_against_definition(
        call_with(order, 10, 4),
        tensors,
        torch.float32,
        stride_as=lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    )


def test_heads_of_a_fused_projection(device):
    from mmattn.ops.triton_kernels.cluster_attention import cluster_attention

    qkv = torch.randn(2, 9, 3, 2, 8, device=device, requires_grad=True)
    order = torch.randperm(9, device=device).expand(2, 2, 9)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, h, N, d)
    out, _ = cluster_attention(q, k, v, order, 4, 2, 0.5)
    want, _ = cluster_attention(
        *(x.contiguous() for x in (q, k, v)), order.contiguous(), 4, 2, 0.5
    )
    # Heads lie side by side, so that a projection can follow without a copy.
    assert out.transpose(1, 2).is_contiguous()
    assert torch.equal(out, want)
    weights = torch.randn_like(out)
    (got,) = torch.autograd.grad(out, qkv, weights)
    (expected,) = torch.autograd.grad(want, qkv, weights)
    assert torch.equal(got, expected)


def test_a_gradient_that_is_one_number(device):
    (q, k, v), order = inputs(2, 21, 8)
    q, k, v = (x.to(device).requires_grad_() for x in (q, k, v))
    call = call_with(order, 5, 2)
    grads = [
        torch.autograd.grad(call(q, k, v, impl).sum(), v)[0]
        for impl in ('reference', 'triton')
    ]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


def test_no_problem(device):
    empty = torch.empty(0, 21, 8, device=device, requires_grad=True)
    order = torch.empty(0, 21, dtype=torch.int64, device=device)
    out = cluster_attention(empty, empty, empty, order, impl='triton')
    assert out.shape == (0, 21, 8)
    assert torch.autograd.grad(out.sum(), empty)[0].shape == empty.shape


def test_autocast_does_not_narrow(device):
    tensors, order = inputs(2, 21, 8)
    q, k, v = (x.to(device) for x in tensors)
    call = call_with(order, 5, 2)
    with torch.autocast(device.type, torch.bfloat16):
        out = call(q, k, v, 'triton')
    assert out.dtype == torch.float32
    assert torch.equal(out, call(q, k, v, 'triton'))


def test_checkpointing_gives_the_same_gradients(device):
    tensors, order = inputs(2, 21, 8)
    tensors = [x.to(device).requires_grad_() for x in tensors]
    call = call_with(order, 5, 2)
    want = torch.autograd.grad(call(*tensors, 'triton').sum(), tensors)
    out = checkpoint(call, *tensors, 'triton', use_reentrant=False)
    got = torch.autograd.grad(out.sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_operator_keeps_the_rules_of_torch_library(device):
    from mmattn.ops.triton_kernels.cluster_attention import cluster_attention

    q, k, v = torch.randn(3, 1, 2, 8, 4, device=device)
    order = torch.randperm(8, device=device).expand(1, 2, 8)
    for needs_gradient in (False, True):
        tensors = [x.clone().requires_grad_(needs_gradient) for x in (q, k, v)]
        torch.library.opcheck(cluster_attention, (*tensors, order, 4, 2, 0.5))


def test_compiled_for_all_sizes_at_once(device):
    def attend(q, k, v, order):
        return cluster_attention(q, k, v, order, 5, 2, impl='triton')

    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(
        attend, fullgraph=True, dynamic=True, backend=counter
    )
    for N in (9, 13, 17):
        tensors, order = inputs(1, N, 8)
        tensors = [x.to(device).requires_grad_() for x in tensors]
        order = order.to(device)
        out, want = compiled(*tensors, order), attend(*tensors, order)
        assert torch.equal(out, want)
        weights = torch.randn_like(out)
        got = torch.autograd.grad(out, tensors, weights)
        expected = torch.autograd.grad(want, tensors, weights)
        assert all(torch.equal(a, b) for a, b in zip(got, expected))
    assert counter.frame_count == 1


def test_export_holds_the_operator(device):
    class Layer(torch.nn.Module):
        def forward(self, q, k, v, order):
            return cluster_attention(q, k, v, order, 5, 2, impl='triton')

    tensors, order = inputs(2, 21, 8)
    arguments = *(x.to(device) for x in tensors), order.to(device)
    program = torch.export.export(Layer(), arguments)
    assert 'mmattn.cluster_attention' in str(program.graph)
    out = program.module()(*arguments)
    assert torch.equal(out, Layer()(*arguments))
