import pytest
import torch

from mmattn.attentions import EfficientNonLocalAttention


def test_queries_and_keys_have_one_length_in_each_head():
    layer = EfficientNonLocalAttention(12, 3, key_dims=6, amplification=2.5)
    for x in layer.embed(torch.randn(2, 5, 4, 12)):
        assert x.shape == (2, 3, 20, 2)
        torch.testing.assert_close(x.norm(dim=-1), torch.full((2, 3, 20), 2.5))


def test_heads_attend_by_themselves():
    layer = EfficientNonLocalAttention(12, 3).double()
    x = torch.randn(1, 5, 7, 12).double()
    with torch.no_grad():
        before = layer(x)
        layer.k.weight[4:8] += 1
        changed = (layer(x) - before).abs().amax((0, 1, 2)) > 1e-9
    assert changed.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_every_token_reaches_every_other():
    layer = EfficientNonLocalAttention(8).double()
    x = torch.randn(1, 30, 40, 8).double().requires_grad_()
    layer(x)[0, 0, 0].square().sum().backward()
    assert (x.grad.abs().sum(-1) > 0).all()


def test_features_follow_from_the_seed_and_stay_with_the_weights():
    first, same = (EfficientNonLocalAttention(8, seed=5) for _ in range(2))
    other = EfficientNonLocalAttention(8, seed=6)
    assert torch.equal(first.projection, same.projection)
    assert not torch.equal(first.projection, other.projection)
    other.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first.projection, other.projection)
    assert not first.projection.requires_grad


def test_redrawn_features_are_orthogonal_and_replace_the_old_in_place():
    layer = EfficientNonLocalAttention(8, num_features=6)
    buffer, old = layer.projection, layer.projection.clone()
    layer.redraw_projection(seed=9)
    assert layer.projection is buffer
    assert not torch.equal(layer.projection, old)
    products = layer.projection @ layer.projection.T
    off = products - products.diagonal().diag()
    assert off.abs().max() < 1e-4
    layer.redraw_projection(seed=0)
    assert torch.equal(layer.projection, old)


def test_position_tells_equal_tokens_apart():
    x = torch.ones(1, 4, 6, 8)
    plain = EfficientNonLocalAttention(8)
    q, _ = plain.embed(x)
    assert (q == q[:, :, :1]).all()
    placed = EfficientNonLocalAttention(8, with_position=True)
    q, _ = placed.embed(x)
    assert not torch.allclose(q[:, :, 0], q[:, :, 1])
    # Values stay without: equal ones mix to themselves.
    torch.testing.assert_close(placed(x), placed.v(x))


def test_half_precision_tokens_of_any_size_are_scaled_right(half):
    layer = EfficientNonLocalAttention(8, seed=1)
    torch.nn.init.zeros_(layer.q.bias)
    x = torch.full((1, 1, 1, 8), 400.0, dtype=half)
    q, _ = layer.to(half).embed(x)
    assert q.dtype == torch.float32
    torch.testing.assert_close(q.norm(), torch.tensor(1.0))


def test_wrong_key_dims():
    with pytest.raises(
        ValueError, match='num_heads to divide key_dims, got key_dims=4'
    ):
        EfficientNonLocalAttention(12, 3, key_dims=4)


def test_position_needs_a_multiple_of_four():
    with pytest.raises(
        ValueError, match='embed_dims to be a multiple of 4 .*, got 6'
    ):
        EfficientNonLocalAttention(6, with_position=True)
