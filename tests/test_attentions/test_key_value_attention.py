import pytest
import torch
from golden import difference

from mmattn.attentions import KeyValueAttention
from mmattn.ops import sine_position


@pytest.mark.parametrize('impl', ['reference', 'sdpa'])
@pytest.mark.parametrize('with_maps', [True, False])
@pytest.mark.parametrize(
    'name', ['key_value_attention', 'key_value_attention_cross']
)
def test_equals_published_module(name, with_maps, impl, golden_case):
    case = golden_case(name)
    layer = KeyValueAttention(96, 4, impl=impl).double()
    layer.load_state_dict(
        {k: torch.from_numpy(case['state'][k]) for k in case['state']}
    )
    q, k, v = (torch.from_numpy(case['inputs'][i]) for i in 'qkv')
    if with_maps:
        side = int(k.shape[1] ** 0.5)
        k, v = k.unflatten(1, (side, side)), v.unflatten(1, (side, side))
    out = layer(q.unflatten(1, (7, 7)), k, v).flatten(1, 2).detach()
    assert difference(case['captures']['out'], out.numpy()) <= 1e-9


def test_parameters_of_the_published_module():
    layer = KeyValueAttention(96, 4)
    assert sum(p.numel() for p in layer.parameters()) == 37_248


def test_keys_and_values_default_to_what_is_there():
    layer = KeyValueAttention(8, 2)
    x, other = torch.randn(1, 4, 5, 8), torch.randn(1, 3, 3, 8)
    torch.testing.assert_close(layer(x), layer(x, x, x))
    torch.testing.assert_close(layer(x, other), layer(x, other, other))
    torch.testing.assert_close(layer(x, value=other), layer(x, other, other))


def test_reduction_makes_one_key_of_a_square():
    layer = KeyValueAttention(8, 2, spatial_reduction=3).double()
    x = torch.randn(2, 7, 5, 8).double()
    padded = torch.zeros(2, 9, 6, 8).double()
    padded[:, :7, :5] = x
    reduced = layer.reduction(padded.permute(0, 3, 1, 2))
    assert reduced.shape == (2, 8, 3, 2)
    tokens = layer.reduction_norm(reduced.flatten(2).transpose(1, 2))
    # Tokens in a sequence are taken as they are.
    torch.testing.assert_close(layer(x), layer(x, tokens))


def test_keys_and_values_of_two_maps_are_both_reduced():
    layer = KeyValueAttention(8, 2, spatial_reduction=2).double()
    x, key, value = torch.randn(3, 1, 4, 6, 8).double()

    def tokens(source):
        reduced = layer.reduction(source.permute(0, 3, 1, 2))
        return layer.reduction_norm(reduced.flatten(2).transpose(1, 2))

    torch.testing.assert_close(
        layer(x, key, value), layer(x, tokens(key), tokens(value))
    )


def test_position_is_added_to_queries_and_keys():
    placed = KeyValueAttention(8, 2, with_position=True).double()
    plain = KeyValueAttention(8, 2).double()
    plain.load_state_dict(placed.state_dict())
    x = torch.randn(1, 4, 6, 8).double()
    place = sine_position((4, 6), 8, x.device)
    torch.testing.assert_close(placed(x), plain(x + place, x + place, x))
    assert not torch.allclose(placed(x), plain(x))


@pytest.mark.parametrize(
    'key, value',
    [
        ((2, 9, 8), (2, 7, 8)),
        ((1, 9, 8), (1, 9, 8)),
        ((2, 9, 6), (2, 9, 6)),
        ((2, 8), (2, 8)),
    ],
)
def test_sources_that_do_not_fit(key, value):
    layer = KeyValueAttention(8, 2)
    with pytest.raises(
        ValueError,
        match=r'KeyValueAttention expects key and value of one shape, '
        r"\(2, H', W', 8\) or \(2, L, 8\), got",
    ):
        layer(torch.randn(2, 4, 4, 8), torch.randn(key), torch.randn(value))


def test_wrong_reduction():
    with pytest.raises(
        ValueError, match='expects spatial_reduction >= 1, got 0'
    ):
        KeyValueAttention(8, 2, spatial_reduction=0)


def test_position_needs_a_multiple_of_four():
    with pytest.raises(
        ValueError, match='embed_dims to be a multiple of 4 .*, got 6'
    ):
        KeyValueAttention(6, 2, with_position=True)
