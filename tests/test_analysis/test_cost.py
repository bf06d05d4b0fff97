"""Costs against numbers worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmattn.analysis import count_cost
from mmattn.attentions import (
    EfficientNonLocalAttention,
    FeatureSpaceAttention,
    WindowAttention,
)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def attend_with_bias(q, k, v):
    bias = torch.zeros(q.shape[-2], k.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def conv_cost(groups, kernel=3, side=10, c_in=12, c_out=24):
    return side * side * c_out * (c_in // groups) * kernel**2


IMAGE = (2, 12, 10, 10)
ROWS = (2, 7, 12)


@pytest.mark.parametrize(
    'module, shapes, want',
    [
        (nn.Linear(12, 5), [ROWS], 2 * 7 * 12 * 5),
        (nn.Linear(12, 5, bias=False), [ROWS], 2 * 7 * 12 * 5),
        (nn.Conv2d(12, 24, 3, padding=1), [IMAGE], 2 * conv_cost(1)),
        (nn.Conv2d(12, 24, 3, padding=1, groups=4), [IMAGE], 2 * conv_cost(4)),
        (
            nn.Conv2d(12, 24, 3, padding=1, groups=12),
            [IMAGE],
            2 * conv_cost(12),
        ),
        (
            nn.Conv2d(12, 24, 2, stride=2),
            [IMAGE],
            2 * conv_cost(1, kernel=2, side=5),
        ),
        (
            nn.ConvTranspose2d(12, 24, 2, stride=2),
            [IMAGE],
            2 * 10 * 10 * 24 * 12 * 2**2,
        ),
        # Both products of attention, each of N x L x d for each head.
        (Call(attend), [(2, 3, 7, 8), (2, 3, 9, 8), (2, 3, 9, 8)], 6048),
        (
            Call(attend_with_bias),
            [(2, 3, 7, 8), (2, 3, 9, 8), (2, 3, 9, 8)],
            6048,
        ),
        (
            Call(lambda a, b: torch.einsum('bnd,bde->bne', a, b)),
            [(2, 7, 8), (2, 8, 5)],
            2 * 7 * 8 * 5,
        ),
        (Call(torch.bmm), [(2, 7, 8), (2, 8, 5)], 2 * 7 * 8 * 5),
        (Call(torch.matmul), [(2, 3, 7, 8), (8, 5)], 2 * 3 * 7 * 8 * 5),
        (nn.LayerNorm(12), [ROWS], 0),
    ],
)
def test_multiply_adds(module, shapes, want):
    inputs = [torch.rand(shape) for shape in shapes]
    cost = count_cost(module, *inputs)
    assert cost.multiply_adds == want
    # Gradients change which kernel runs, never what is counted.
    for x in inputs:
        x.requires_grad_()
    assert count_cost(module, *inputs).multiply_adds == want


@pytest.mark.parametrize('impl', ['reference', 'sdpa'])
def test_window_attention(impl):
    # 10 x 14 tokens are padded to 2 x 2 windows of 49 before q, k and v.
    model = WindowAttention(12, num_heads=3, impl=impl)
    cost = count_cost(model, torch.rand(1, 10, 14, 12))
    projections = 3 * (4 * 49) * 12**2 + 10 * 14 * 12**2
    attention = 2 * (4 * 49) * 49 * 12
    assert cost.multiply_adds == projections + attention


def test_random_features():
    C, N = 16, 9 * 11
    model = EfficientNonLocalAttention(C)
    cost = count_cost(model, torch.rand(1, 9, 11, C))
    m = len(model.projection)
    # q, k, v; features of q and k; keys by values; queries by both sums.
    want = 3 * N * C * C + 2 * N * C * m + 2 * N * m * C + N * m
    assert cost.multiply_adds == want


def test_clusters():
    model = FeatureSpaceAttention(16, num_heads=2)
    side, C = 14, 16  # 196 tokens: 4 clusters of 49, with 20 of the sibling
    N = side * side
    cost = count_cost(model, torch.rand(1, side, side, C))
    attention = 2 * N * (49 + 20) * C
    # Two levels, each: three times two centroids and their similarities.
    clustering = 2 * 3 * (2 + 2) * N * C
    local = 9 * N * C
    assert cost.multiply_adds == (
        4 * N * C**2 + attention + clustering + local
    )


class Parts(nn.Module):
    """Modules used in every way: called, in a list, by a method."""

    def __init__(self):
        super().__init__()
        self.list = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = Head()
        self.idle = nn.Linear(4, 7)
        self.raw = nn.Linear(4, 5)

    def forward(self, x):
        for layer in self.list:
            x = layer(x)
        return self.head.predict(x) + F.linear(x, self.raw.weight).sum()


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def predict(self, x):
        return self.out(x)


def test_each_module_has_its_cost():
    model = Parts()
    model.idle.requires_grad_(False)
    cost = count_cost(model, torch.rand(2, 4))
    assert cost.parameters == 20 + 20 + 15 + 6 + 35 + 25
    assert cost.multiply_adds == 2 * (16 + 16 + 12 + 20)
    got = {
        name: (part.parameters, part.multiply_adds)
        for name, part in cost.modules.items()
    }
    assert got == {
        'list': (40, 64),
        'list.0': (20, 32),
        'list.1': (20, 32),
        'head': (21, 24),
        'head.out': (21, 24),
        'head.out.0': (15, 24),
        'head.out.1': (6, 0),
        'idle': (35, 0),
        'raw': (25, 0),
    }


def test_a_module_called_twice_costs_twice():
    layer = nn.Linear(4, 4)
    cost = count_cost(nn.Sequential(layer, layer), torch.rand(3, 4))
    assert cost.parameters == 20
    assert cost.modules['0'].multiply_adds == cost.multiply_adds == 96


def test_counting_leaves_no_trace():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count_cost(model, torch.rand(3, 4))
    assert [m.training for m in model] == [True, True, False]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(m._forward_hooks for m in model.modules())


def test_modes_and_hooks_are_put_back_after_an_error():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match='shapes cannot be multiplied'):
        count_cost(model, torch.rand(3, 5))
    assert model.training and model[0].training
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks
