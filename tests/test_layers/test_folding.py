import pytest
import torch
from torch import nn

from mmattn.layers import ConvStem, fold_batch_norm, has_fixed_statistics


@pytest.mark.parametrize('with_bias', [True, False])
def test_equals_the_norm_behind_the_convolution(with_bias):
    conv = nn.Conv2d(3, 5, 3, bias=with_bias).double()
    norm = nn.BatchNorm2d(5).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(4, 3, 6, 7).double()
    norm(conv(x))  # so that the statistics are not those of the start
    norm.eval()
    parameters = [*conv.parameters(), *norm.parameters()]
    want = norm(conv(x))
    weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
    out = nn.functional.conv2d(x, weight, bias)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), parameters),
        torch.autograd.grad(want.square().sum(), parameters),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize(
    'conv_dtype, norm_dtype',
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),  # norms are often kept wide
    ],
)
def test_without_affine_and_in_half_precision(conv_dtype, norm_dtype):
    conv, norm = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, affine=False).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    conv.to(conv_dtype), norm.to(norm_dtype)
    weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
    assert weight.dtype == bias.dtype == conv_dtype
    x = torch.randn(2, 3, 4, 4, dtype=conv_dtype)
    want = norm(conv(x).to(norm_dtype))
    limit = 1e-5 if conv_dtype == torch.float32 else 0.1
    torch.testing.assert_close(
        nn.functional.conv2d(x, weight, bias).float(),
        want.float(),
        rtol=limit,
        atol=limit,
    )


def test_a_norm_without_running_statistics_is_not_folded():
    stem = ConvStem(3, 8).eval()
    assert has_fixed_statistics(stem.batch_norm)
    stem.batch_norm = nn.BatchNorm2d(8, track_running_stats=False).eval()
    assert not has_fixed_statistics(stem.batch_norm)
    x = torch.randn(2, 3, 8, 12)
    out = stem(x)
    assert torch.equal(out, stem.train()(x))
