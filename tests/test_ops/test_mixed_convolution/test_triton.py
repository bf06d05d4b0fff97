import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from mmattn.ops import mixed_convolution

CASES = [  # map, channels of a head, sides
    ((1, 3, 5), 4, (3, 5, 7, 9)),
    ((2, 4, 3), 3, (5, 1)),
    ((1, 2, 1), 5, (3,)),
]


def inputs(size, channels, sides):
    return [
        torch.randn(*size, len(sides) * channels),
        *(torch.randn(channels, 1, side, side) for side in sides),
        *(torch.randn(channels) for _ in sides),
    ]


def convolve(x, *parameters, impl):
    heads = len(parameters) // 2
    weights, biases = parameters[:heads], parameters[heads:]
    return mixed_convolution(x, weights, biases, impl)


@pytest.mark.parametrize('size, channels, sides', CASES)
def test_float32(check_against_reference, size, channels, sides):
    tensors = inputs(size, channels, sides)
    check_against_reference(convolve, tensors, torch.float32)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(check_against_reference, dtype):
    tensors = inputs((1, 3, 4), 4, (3, 5))
    check_against_reference(convolve, tensors, dtype)


def test_strides(check_against_reference):
    def lay_out(x):
        if x.ndim == 1:
            return x
        return x.transpose(-1, 1).contiguous().transpose(-1, 1)

    tensors = inputs((1, 3, 4), 4, (3, 5))
    check_against_reference(
        convolve, tensors, torch.float32, stride_as=lay_out
    )


def test_more_of_all_than_a_program_holds(
    check_against_reference, monkeypatch
):
    from mmattn.ops.mixed_convolution import triton

    monkeypatch.setattr(triton, '_COLUMNS', 2)
    monkeypatch.setattr(triton, '_CHANNELS', 4)
    monkeypatch.setattr(triton, '_VALUES', 16)
    monkeypatch.setattr(triton, '_MOST_PROGRAMS', 2)
    tensors = inputs((1, 3, 5), 6, (3, 1))
    check_against_reference(convolve, tensors, torch.float32)


@pytest.mark.parametrize('axis', [1, 2])
def test_places_that_32_bits_do_not_reach(device, spread_out, axis):
    from mmattn.ops.mixed_convolution.triton import backward, forward

    x, grad = (torch.randn(1, 4, 4, 4, device=device).half() for _ in 'xg')
    far = spread_out(x, axis)
    taps = torch.randn(10, 2, device=device)
    options = taps, torch.randn(2, 2, device=device), [3, 1]
    assert torch.equal(*forward(far, *options), *forward(x, *options))
    want = backward(grad, [], [True] * 3, x, *options)
    got = backward(grad, [], [True] * 3, far, *options)
    assert all(map(torch.equal, got, want))


def test_no_image(device):
    tensors = [
        x.to(device).requires_grad_() for x in inputs((0, 3, 5), 4, (3, 5))
    ]
    out = convolve(*tensors, impl='triton')
    assert out.shape == (0, 3, 5, 8)
    for grad in torch.autograd.grad(out.sum(), tensors):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_autocast_narrows_as_a_convolution(device):
    tensors = [x.to(device) for x in inputs((1, 3, 4), 4, (3, 5))]
    with torch.autocast(device.type, torch.bfloat16):
        outs = [convolve(*tensors, impl=x) for x in ('reference', 'triton')]
    assert [out.dtype for out in outs] == [torch.bfloat16] * 2
    torch.testing.assert_close(*outs, rtol=0, atol=0.1)


def test_checkpointing_gives_the_same_gradients(device):
    def call(*tensors):
        return convolve(*tensors, impl='triton')

    tensors = [
        x.to(device).requires_grad_() for x in inputs((1, 2, 3), 4, (3, 5))
    ]
    want = torch.autograd.grad(call(*tensors).sum(), tensors)
    out = checkpoint(call, *tensors, use_reentrant=False)
    got = torch.autograd.grad(out.sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_operator_keeps_the_rules_of_torch_library(device):
    tensors = [
        torch.randn(shape, device=device, requires_grad=True)
        for shape in ((1, 2, 3, 4), (10, 2), (2, 2))
    ]
    operator = torch.ops.mmattn.mixed_convolution_triton.default
    torch.library.opcheck(operator, (*tensors, [3, 1]))


def test_compiled_for_all_sizes_at_once(device):
    def call(*tensors):
        return convolve(*tensors, impl='triton')

    torch._dynamo.reset()
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(
        call, fullgraph=True, dynamic=True, backend=counter
    )
    # No two axes alike, which a compiler would take for one.
    for size in ((2, 4, 6), (2, 6, 4)):
        tensors = [x.to(device) for x in inputs(size, 5, (3, 1))]
        assert torch.equal(compiled(*tensors), call(*tensors))
    assert counter.frame_count == 1
