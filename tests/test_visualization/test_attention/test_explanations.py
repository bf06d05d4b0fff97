import pytest
import torch
from torch import nn

from mmattn.attentions import (
    ScaleAwareModulation,
    SlidingWindowAttention,
    WindowAttention,
)
from mmattn.visualization.attention import (
    AttentionRows,
    explain,
    explanations,
    register_explanation,
)


@pytest.fixture
def registry(monkeypatch):
    """Remove new registrations after the test."""
    monkeypatch.setattr(
        explanations, '_EXPLAINERS', dict(explanations._EXPLAINERS)
    )


def test_register_another_attention(registry):
    class Mean(nn.Linear):
        num_heads = 1

    @register_explanation(Mean)
    def uniform(layer, inputs, tokens):
        H, W = inputs[0].shape[1:3]
        return [AttentionRows(torch.full((len(tokens), 1, H, W), 1 / H / W))]

    (rows,) = explain(Mean(4, 4), (torch.zeros(2, 2, 5, 4),), [(1, 4)])
    assert rows.weights.shape == (1, 1, 2, 5)


def test_a_subclass_is_explained_like_its_base(registry):
    find = explanations.find_explanation
    window = WindowAttention(8, 2)
    assert find(SlidingWindowAttention(8, 2)) is find(window)
    assert find(nn.Linear(2, 2)) is None


@pytest.mark.parametrize('training', [True, False])
def test_the_layer_is_unchanged(training):
    layer = ScaleAwareModulation(8).train(training)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    explain(layer, (torch.randn(1, 4, 5, 8),), [(0, 0)])
    assert all(part.training is training for part in layer.modules())
    assert all(torch.equal(layer.state_dict()[k], before[k]) for k in before)
    assert not any(part._forward_hooks for part in layer.modules())
    assert all(p.grad is None for p in layer.parameters())


def test_no_grad_and_autocast():
    layer, x = WindowAttention(8, 2, 3), torch.randn(2, 4, 5, 8)
    (plain,) = explain(layer, (x[:1],), [(1, 2)])
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        (mixed,) = explain(layer, (x,), [(1, 2)])
    assert torch.equal(plain.weights, mixed.weights)
    (half,) = explain(layer, (x.bfloat16(),), [(1, 2)])
    torch.testing.assert_close(half.weights, plain.weights, atol=5e-3, rtol=0)


def test_a_layer_without_an_explanation():
    with pytest.raises(ValueError, match='Linear'):
        explain(nn.Linear(8, 8), (torch.randn(1, 4, 5, 8),), [(0, 0)])
