"""Saved activations, against sums by hand."""

import pytest
import torch
from torch import nn

from mmattn.analysis import saved_activations

B, C, D = 3, 4, 10
FLOAT = 4


@pytest.fixture
def mlp():
    return nn.Sequential(nn.Linear(C, D), nn.GELU(), nn.Linear(D, C))


def test_an_mlp(mlp):
    x = torch.rand(B, C)
    # The input of the first layer, of the activation, of the second layer.
    activations = (B * C + B * D + B * D) * FLOAT
    # The second layer's weight is needed for the gradient of its input; the
    # first layer's input has no gradient.
    weights = D * C * FLOAT
    assert saved_activations(lambda: mlp(x)) == activations + weights
    besides = [*mlp.parameters(), x]
    without = activations - B * C * FLOAT
    assert saved_activations(lambda: mlp(x), besides) == without


def test_a_storage_counts_once():
    x = torch.rand(B, C, requires_grad=True)

    def call():
        shared = x.exp()  # saves its result
        return shared.view(-1).sin(), shared.t().cos()  # save views of it

    assert saved_activations(call) == B * C * FLOAT


def test_nothing_is_saved_without_gradients(mlp):
    with torch.no_grad():
        assert saved_activations(lambda: mlp(torch.rand(B, C))) == 0
