import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmattn.layers import MLP, ConvMLP


class Adapter(nn.Module):
    """A linear layer with a low-rank branch beside it."""

    def __init__(self, layer, rank=2):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def test_activation_comes_between():
    mlp = MLP(6, 9)
    x = torch.randn(2, 4, 5, 6)
    want = mlp.fc2(F.gelu(mlp.fc1(x)))
    torch.testing.assert_close(mlp(x), want)
    with torch.inference_mode():
        torch.testing.assert_close(mlp(x), want)


def test_adapters_add_before_the_activation():
    mlp = MLP(6, 9)
    mlp.fc1 = Adapter(mlp.fc1)
    x = torch.randn(2, 4, 5, 6)
    adapter = mlp.fc1
    hidden = adapter.layer(x) + adapter.up(adapter.down(x))
    torch.testing.assert_close(mlp(x), mlp.fc2(F.gelu(hidden)))


@pytest.mark.parametrize('kind', [MLP, ConvMLP])
def test_hooks_of_all_layers_run_and_change_nothing(kind):
    mlp = kind(6, 9)
    x = torch.randn(2, 4, 5, 6)
    want = mlp(x)
    called = []
    for name, layer in mlp.named_children():
        layer.register_forward_hook(
            lambda module, args, out, name=name: called.append(name)
        )
    torch.testing.assert_close(mlp(x), want)
    assert called == [name for name, _ in mlp.named_children()]


@pytest.mark.parametrize('kind', [MLP, ConvMLP])
def test_a_forward_that_was_replaced_runs(kind):
    mlp = kind(6, 9)
    if kind is ConvMLP:
        mlp.local_conv.forward = torch.zeros_like
    mlp.fc2.forward = lambda x: x
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(mlp(x), F.gelu(mlp.fc1(x)))


def test_neighbours_are_seen_before_the_activation():
    mlp = ConvMLP(6, 9)
    x = torch.randn(2, 4, 5, 6)
    hidden = mlp.fc1(x)
    local = mlp.local_conv(hidden.movedim(-1, 1)).movedim(1, -1)
    want = mlp.fc2(F.gelu(hidden + local))
    torch.testing.assert_close(mlp(x), want)


@pytest.mark.usefixtures('compiler')
def test_compiled_equals_eager():
    mlp = MLP(6, 9)
    x = torch.randn(2, 4, 6)
    compiled = torch.compile(mlp, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), mlp(x))
