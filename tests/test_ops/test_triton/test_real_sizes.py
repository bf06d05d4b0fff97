"""Kernels on maps of a tiny backbone: only a GPU is fast enough."""

import pytest
import torch

from mmattn.ops import (
    balanced_clusters,
    cluster_attention,
    cross_shaped_attention,
    mixed_convolution,
    padded_size,
    window_attention,
)

DTYPES = pytest.mark.parametrize(
    'dtype', [torch.float32, torch.bfloat16], ids=str
)
# Images, height, width, heads: stages of a classifier, and of a detector
# whose map nothing divides.
MAPS = pytest.mark.parametrize(
    'B, H, W, h', [(4, 56, 56, 3), (4, 14, 14, 12), (1, 200, 335, 3)]
)


@pytest.fixture(autouse=True)
def gpu():
    if not torch.cuda.is_available():
        pytest.skip('maps of real size need a CUDA device')
    return torch.device('cuda')


@MAPS
@DTYPES
def test_windows(check_against_reference, dtype, B, H, W, h):
    H, W = padded_size((H, W), (7, 7))

    def call(qkv, bias, impl):
        return window_attention(qkv, h, 7, 3, bias, impl=impl)

    tensors = [torch.randn(B, H, W, 96 * h), torch.randn(h, 49, 49)]
    check_against_reference(call, tensors, dtype)


@MAPS
@DTYPES
@pytest.mark.parametrize('stripe', [1, 7])
def test_stripes(check_against_reference, dtype, stripe, B, H, W, h):
    h += h % 2

    def call(qkv, weight, bias, impl):
        return cross_shaped_attention(qkv, h, stripe, weight, bias, impl=impl)

    C = 32 * h
    tensors = [torch.randn(s) for s in ((B, H, W, 3 * C), (C, 1, 3, 3), (C,))]
    check_against_reference(call, tensors, dtype)


@DTYPES
def test_the_whole_map(check_against_reference, dtype):
    def call(qkv, weight, bias, impl):
        return cross_shaped_attention(qkv, 3, None, weight, bias, impl=impl)

    tensors = [
        torch.randn(s) for s in ((1, 43, 37, 288), (96, 1, 3, 3), (96,))
    ]
    check_against_reference(call, tensors, dtype)


def test_the_whole_map_needs_no_matrix_of_scores(gpu):
    """Of 16,384 tokens it would take half a gigabyte."""
    qkv = torch.randn(1, 128, 128, 96, device=gpu, dtype=torch.bfloat16)
    weight = torch.randn(32, 1, 3, 3, device=gpu)
    tensors = [x.requires_grad_() for x in (qkv, weight)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = cross_shaped_attention(tensors[0], 1, None, weight, impl='triton')
    torch.autograd.grad(out.float().sum(), tensors)
    assert torch.cuda.max_memory_allocated() - before < 20 * qkv.nbytes


@MAPS
@DTYPES
def test_clusters(check_against_reference, gpu, dtype, B, H, W, h):
    q = torch.randn(B * h, H * W, 32, device=gpu)
    order = balanced_clusters(q, impl='reference').unflatten(0, (B, h))

    def call(qkv, impl):
        return cluster_attention(qkv, order, impl=impl)

    check_against_reference(call, [torch.randn(B, H * W, 96 * h)], dtype)


@MAPS
def test_clustering(gpu, B, H, W, h):
    """Tokens in a place of their own, but for what rounding may exchange."""
    q = torch.randn(B * h, H * W, 32, device=gpu)
    found, want = (
        balanced_clusters(q, impl=x) for x in ('triton', 'reference')
    )
    places = torch.arange(H * W, device=gpu).expand_as(found)
    assert torch.equal(found.sort().values, places)
    assert (found == want).double().mean() > 0.99


@MAPS
@DTYPES
def test_mixed_convolution(check_against_reference, dtype, B, H, W, h):
    sides, c = (3, 5, 7, 9), 8 * h
    tensors = [
        torch.randn(B, H, W, 4 * c),
        *(torch.randn(c, 1, side, side) / side for side in sides),
        *(torch.randn(c) for _ in sides),
    ]

    def call(x, *parameters, impl):
        return mixed_convolution(x, parameters[:4], parameters[4:], impl)

    check_against_reference(call, tensors, dtype)
