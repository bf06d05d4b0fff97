"""Depthwise convolutions of several sizes against a loop over tokens."""

import itertools

import pytest
import torch

from mmattn.ops import mixed_convolution


def random_kernels(sides, c):
    weights = [torch.randn(c, 1, side, side).double() for side in sides]
    return weights, [torch.randn(c).double() for _ in sides]


def by_tokens(x, weights, biases):
    """Every output by itself, straight from the formula."""
    B, H, W, _ = x.shape
    h, c = len(weights), len(weights[0])
    out = torch.zeros_like(x)
    for b, row, col, i, j in itertools.product(*map(range, (B, H, W, h, c))):
        kernel = weights[i][j, 0]
        half = len(kernel) // 2
        total = biases[i][j]
        for dy, dx in itertools.product(range(-half, half + 1), repeat=2):
            if 0 <= row + dy < H and 0 <= col + dx < W:
                token = x[b, row + dy, col + dx, i * c + j]
                total = total + kernel[dy + half, dx + half] * token
        out[b, row, col, j * h + i] = total
    return out


@pytest.mark.parametrize('impl', ['reference', 'cpp'])
@pytest.mark.parametrize('sides', [(3, 5, 7), (1, 5), (3,)])
@pytest.mark.parametrize('size', [(4, 6), (1, 2)])
def test_equals_a_loop_over_tokens(size, sides, impl):
    x = torch.randn(2, *size, 2 * len(sides)).double()
    kernels = random_kernels(sides, 2)
    got = mixed_convolution(x, *kernels, impl)
    torch.testing.assert_close(got, by_tokens(x, *kernels))


@pytest.mark.parametrize('impl', ['reference', 'cpp'])
def test_gradients(impl):
    x = torch.randn(1, 3, 4, 4).double().requires_grad_()
    weights, biases = random_kernels((3, 5), 2)
    for parameter in (*weights, *biases):
        parameter.requires_grad_()

    def function(x, *parameters):
        return mixed_convolution(x, parameters[:2], parameters[2:], impl)

    assert torch.autograd.gradcheck(function, (x, *weights, *biases))
    assert torch.autograd.gradgradcheck(function, (x, *weights, *biases))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('c, sides', [(16, (3, 5, 7, 9)), (21, (5, 3, 11))])
@pytest.mark.parametrize('threads', [1, 3])
def test_cpp_equals_the_reference(threads, c, sides, dtype):
    h = len(sides)
    tensors = [
        torch.randn(2, 8, 15, c * h),
        *sum(random_kernels(sides, c), []),
    ]
    tensors = [x.to(dtype).requires_grad_() for x in tensors]
    upstream = torch.randn(tensors[0].shape, dtype=dtype)

    def call(impl):
        x, *parameters = tensors
        out = mixed_convolution(x, parameters[:h], parameters[h:], impl)
        return out, *torch.autograd.grad(out, tensors, upstream)

    want = call('reference')
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = call('cpp')
    finally:
        torch.set_num_threads(before)
    exact = dtype == torch.float64
    tolerances = (
        dict(rtol=1e-9, atol=1e-9) if exact else dict(rtol=1e-4, atol=1e-4)
    )
    torch.testing.assert_close(got, want, **tolerances)


def test_cpp_leaves_frozen_kernels_alone():
    x = torch.randn(1, 4, 4, 4).double()
    weights, biases = random_kernels((3, 5), 2)
    weights[1].requires_grad_()
    mixed_convolution(x, weights, biases, 'cpp').sum().backward()
    assert weights[1].grad is not None
    assert weights[0].grad is biases[0].grad is biases[1].grad is None


@pytest.mark.parametrize(
    'shape, sides, c',
    [
        ((2, 6, 4), (3, 5), 2),  # no map
        ((2, 6, 6, 5), (3, 5), 2),  # channels that heads do not divide
        ((2, 6, 6, 4), (3, 5), 3),  # kernels of other channels
        ((2, 6, 6, 4), (3, 4), 2),  # a kernel without a centre
        ((2, 6, 6, 4), (), 2),
    ],
)
def test_kernels_that_do_not_fit(shape, sides, c):
    with pytest.raises(ValueError, match='mixed_convolution expects'):
        mixed_convolution(
            torch.randn(shape).double(), *random_kernels(sides, c)
        )


def test_biases_that_do_not_fit():
    weights, biases = random_kernels((3, 5), 2)
    with pytest.raises(ValueError, match='bias'):
        mixed_convolution(
            torch.randn(1, 3, 3, 4).double(), weights, biases[:1]
        )


@pytest.mark.parametrize('impl', ['reference', 'cpp'])
def test_empty_batch(impl):
    x = torch.randn(0, 3, 5, 4, requires_grad=True)
    kernels = [[w.float() for w in ws] for ws in random_kernels((3, 5), 2)]
    out = mixed_convolution(x, *kernels, impl)
    assert out.shape == x.shape
    assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


def test_cpp_reads_some_channels_of_a_wider_map():
    wide = torch.randn(2, 5, 6, 12)
    kernels = [[w.float() for w in ws] for ws in random_kernels((3, 5), 2)]
    for x in (wide[..., 4:8], wide[:, ::2, :, :4], wide.mT[..., :4]):
        torch.testing.assert_close(
            mixed_convolution(x, *kernels, 'cpp'),
            mixed_convolution(x, *kernels, 'reference'),
        )


def test_autocast_takes_the_convolution_of_pytorch(half):
    x = torch.randn(1, 4, 5, 4)
    kernels = [[w.float() for w in ws] for ws in random_kernels((3, 5), 2)]
    want = mixed_convolution(x, *kernels)
    with torch.autocast('cpu', half):
        out = mixed_convolution(x, *kernels)
        with pytest.raises(RuntimeError, match='autocast'):
            mixed_convolution(x, *kernels, 'cpp')
    assert out.dtype == half
    torch.testing.assert_close(out.float(), want, rtol=0, atol=0.1)
