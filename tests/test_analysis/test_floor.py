import torch
from torch import nn

from mmattn.analysis import floor
from mmattn.analysis.timing import Lap
from mmattn.layers import MLP


class Model(nn.Module):
    """One product of each kind, that of the perceptron twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 4, bias=False)
        self.mlp = MLP(4, 4)

    def forward(self, x):
        x = self.conv(x).flatten(2).mT
        return self.mlp(self.fc(x) @ x.mT @ x)


class FusedAttention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_products_of_fused_attention_count(monkeypatch):
    called = []

    def time_in_turns(ways, rounds):
        called.append([way().shape for way in ways.values()])
        return {way: [Lap(1.0, 0.0)] for way in ways}

    monkeypatch.setattr(floor, 'time_in_turns', time_in_turns)
    x = torch.rand(2, 3, 6, 4)
    assert floor.floor_seconds(FusedAttention(), x) == 2.0
    assert called == [[(6, 6, 6)], [(6, 6, 4)]]


def test_each_product_counts_with_its_fastest_way(monkeypatch):
    called = []

    def time_in_turns(ways, rounds):
        called.append(len(ways))
        for way in ways.values():
            assert way().isfinite().all()
        times = [Lap(3.0 + 4 * way, 0.0) for way in ways]
        return {way: [Lap(99.0, 0.0), times[way]] for way in ways}

    monkeypatch.setattr(floor, 'time_in_turns', time_in_turns)
    model = Model().train()
    seconds = floor.floor_seconds(model, torch.rand(2, 3, 6, 6))
    assert model.training
    # Convolution, product without bias, two of batches, one of the two
    # layers of the perceptron, which have the same shapes.
    assert sorted(called) == [1, 1, 2, 3, 3]
    assert seconds == 6 * 3.0
