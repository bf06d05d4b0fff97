import pytest
import torch

from mmattn.plugins import AttentionPlugin

WINDOWS = dict(type='mmattn.WindowAttention', num_heads=2)


def test_begins_as_the_identity():
    plugin = AttentionPlugin(8, WINDOWS)
    x = torch.randn(2, 8, 9, 5)
    assert torch.equal(plugin(x), x)
    (plugin(x) * torch.randn_like(x)).sum().backward()
    assert plugin.scale.grad.abs().min() > 0  # and can leave it


def test_adds_the_attention_of_the_normed_map():
    plugin = AttentionPlugin(8, WINDOWS, init_scale=0.5).double()
    torch.nn.init.normal_(plugin.scale)
    x = torch.randn(2, 8, 9, 5).double()
    added = plugin.attn(plugin.norm(x.permute(0, 2, 3, 1)))
    want = x + plugin.scale[:, None, None] * added.permute(0, 3, 1, 2)
    torch.testing.assert_close(plugin(x), want)


def test_unknown_attention():
    with pytest.raises(
        ValueError, match='AttentionPlugin expects registered attentions'
    ):
        AttentionPlugin(8, dict(type='mmattn.Windows'))
