import torch
import torch.nn.functional as F

from mmattn.layers import MLP, ConvMLP


def test_activation_comes_between():
    mlp = MLP(6, 9)
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(mlp(x), mlp.fc2(F.gelu(mlp.fc1(x))))


def test_neighbors_are_seen_before_the_activation():
    mlp = ConvMLP(6, 9)
    x = torch.randn(2, 4, 5, 6)
    hidden = mlp.fc1(x)
    local = mlp.local_conv(hidden.movedim(-1, 1)).movedim(1, -1)
    want = mlp.fc2(F.gelu(hidden + local))
    torch.testing.assert_close(mlp(x), want)
