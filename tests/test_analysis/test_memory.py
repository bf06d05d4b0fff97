"""Bytes kept and moved, against sums by hand."""

import pytest
import torch
from torch import nn

from mmattn.analysis.memory import kept_bytes, moved_bytes

B, C, D = 3, 4, 10
FLOAT = 4


@pytest.fixture
def perceptron():
    return nn.Sequential(nn.Linear(C, D), nn.GELU(), nn.Linear(D, C))


def test_bytes_kept_of_a_perceptron(perceptron):
    x = torch.rand(B, C)
    # The input of the first layer, of the activation, of the second layer.
    activations = (B * C + B * D + B * D) * FLOAT
    # The second layer's weight leads to the gradient of its input; that of
    # the first has no gradient to lead to.
    weights = D * C * FLOAT
    assert kept_bytes(lambda: perceptron(x)) == activations + weights
    besides = [*perceptron.parameters(), x]
    without = activations - B * C * FLOAT
    assert kept_bytes(lambda: perceptron(x), besides) == without


def test_a_storage_counts_once():
    x = torch.rand(B, C, requires_grad=True)

    def call():
        shared = x.exp()  # keeps its result
        return shared.view(-1).sin(), shared.t().cos()  # keep views of it

    assert kept_bytes(call) == B * C * FLOAT


def test_nothing_is_kept_without_a_gradient(perceptron):
    with torch.no_grad():
        assert kept_bytes(lambda: perceptron(torch.rand(B, C))) == 0


def test_bytes_moved():
    x, y = torch.rand(B, C), torch.rand(1).expand(B, C)
    one = B * C * FLOAT
    assert moved_bytes(lambda: x + x.t().t()) == 3 * one
    assert moved_bytes(lambda: x.view(-1)) == 0
    assert moved_bytes(lambda: torch.empty(B, C)) == 0
    assert moved_bytes(lambda: x.clone().mul_(2)) == 4 * one
    # What repeats one number is read as one number.
    assert moved_bytes(lambda: x + y) == 2 * one + FLOAT


def test_bytes_moved_by_the_backward_pass():
    x = torch.rand(B, C, requires_grad=True)
    weight = torch.rand(C, D)
    out = x @ weight
    gradient = torch.rand_like(out)
    expected = (B * D + C * D + B * C) * FLOAT
    assert moved_bytes(lambda: out.backward(gradient)) == expected
