"""Convolutions of several sizes and the groups' matrices in one."""

import pytest
import torch
import torch.nn.functional as F

from mmattn.ops import (
    forced_implementations,
    mixed_convolution,
    mixed_expansion,
    watch_choices,
)


def inputs(h=3, c=2, e=5):
    sides = (3, 5, 7, 9)[:h]
    return (
        torch.randn(2, 4, 6, h * c).double(),
        [torch.randn(c, 1, side, side).double() for side in sides],
        [torch.randn(c).double() for _ in sides],
        torch.randn(c * e, h).double(),
        torch.randn(c * e).double(),
    )


def by_groups(x, weights, biases, matrices, bias):
    """Each group of channels by a matrix product of its own."""
    h = len(weights)
    scales = mixed_convolution(x, weights, biases, 'reference')
    outs = [
        F.gelu(group @ matrix.mT + offset)
        for group, matrix, offset in zip(
            scales.split(h, dim=-1),
            matrices.chunk(x.shape[-1] // h),
            bias.chunk(x.shape[-1] // h),
        )
    ]
    return torch.cat(outs, dim=-1)


@pytest.mark.parametrize('impl', ['auto', 'reference', 'parts', 'cpp'])
@pytest.mark.parametrize(
    'sizes', [(3, 2, 5), (1, 4, 1), (4, 3, 8), (4, 18, 2)]
)
def test_equals_a_product_for_each_group(sizes, impl):
    tensors = inputs(*sizes)
    torch.testing.assert_close(
        mixed_expansion(*tensors, impl), by_groups(*tensors)
    )


def test_gradients():
    x, weights, biases, matrices, bias = inputs(2, 2, 3)
    x = x[:1, :2, :3].requires_grad_()

    def function(x, matrices, bias, *kernels):
        return mixed_expansion(x, kernels[:2], kernels[2:], matrices, bias)

    parameters = [matrices, bias, *weights, *biases]
    parameters = [p.requires_grad_() for p in parameters]
    assert torch.autograd.gradcheck(function, (x, *parameters))


def test_cpp_is_for_inference():
    x, *parameters = inputs()
    x.requires_grad_()
    with pytest.raises(RuntimeError, match='cpp.: it is for inference, got'):
        mixed_expansion(x, *parameters, 'cpp')
    with torch.no_grad():
        mixed_expansion(x, *parameters, 'cpp')


def test_parts_are_chosen_by_themselves():
    tensors = inputs()
    tensors[0].requires_grad_()
    chosen = []
    with watch_choices(lambda row: chosen.append((row.operation, row.name))):
        mixed_expansion(*tensors, 'reference')
        with forced_implementations({'grouped_linear': 'dense'}):
            mixed_expansion(*tensors)
    assert chosen[:3] == [
        ('mixed_expansion', 'reference'),
        ('mixed_convolution', 'reference'),
        ('grouped_linear', 'reference'),
    ]
    assert chosen[3] == ('mixed_expansion', 'parts')
    assert ('grouped_linear', 'dense') in chosen[4:]


@pytest.mark.parametrize(
    'matrices, bias',
    [
        ((10, 4), (10,)),  # of other heads
        ((9, 3), (9,)),  # rows that the groups do not divide
        ((10, 3), (9,)),
        ((10, 3, 1), (10,)),
    ],
)
def test_matrices_that_do_not_fit(matrices, bias):
    x, weights, biases, *_ = inputs()
    with pytest.raises(ValueError, match=r'matrices \(c \* e, heads\) and a'):
        mixed_expansion(
            x, weights, biases, torch.randn(matrices), torch.randn(bias)
        )


def test_kernels_that_do_not_fit():
    x, weights, biases, matrices, bias = inputs()
    with pytest.raises(ValueError, match='kernels .* of odd s and a bias'):
        mixed_expansion(x, weights, biases[:2], matrices, bias)
