import pytest
import torch

from mmattn.attentions import CrossShapedWindowAttention


def reached(layer, size, place):
    """Where a change of the token at ``place`` changes the outcome."""
    x = torch.randn(1, *size, 8).double()
    moved = x.clone()
    moved[(0, *place)] += 1
    change = (layer(moved) - layer(x)).abs().amax(-1)[0]
    return change > 1e-9


def test_a_token_reaches_its_column_and_its_row():
    layer = CrossShapedWindowAttention(8, 2, stripe_width=1).double()
    cross = torch.zeros(6, 9, dtype=torch.bool)
    cross[2] = True
    cross[:, 4] = True
    assert torch.equal(reached(layer, (6, 9), (2, 4)), cross)


def test_stripes_of_a_map_that_they_do_not_divide_are_centred():
    layer = CrossShapedWindowAttention(8, 2, stripe_width=4).double()
    # Nine columns lie in three stripes of four, one place after the left and
    # two before the right edge of twelve: columns 0-2, 3-6 and 7-8.
    cross = torch.zeros(4, 9, dtype=torch.bool)
    cross[:] = True  # the rows are one stripe
    assert torch.equal(reached(layer, (4, 9), (2, 4)), cross)
    tall = torch.zeros(9, 12, dtype=torch.bool)
    tall[3:7] = True
    tall[:, 4:8] = True
    assert torch.equal(reached(layer, (9, 12), (5, 6)), tall)


def test_without_stripes_a_token_reaches_the_whole_map():
    layer = CrossShapedWindowAttention(8, 1, stripe_width=None).double()
    assert reached(layer, (5, 7), (4, 6)).all()


def test_without_a_bias():
    layer = CrossShapedWindowAttention(8, 2, qkv_bias=False)
    assert layer.qkv.bias is None
    assert layer(torch.randn(1, 5, 9, 8)).shape == (1, 5, 9, 8)


@pytest.mark.parametrize('heads, width', [(2, 0), (1, 7)])
def test_stripes_without_width_or_heads_without_halves(heads, width):
    with pytest.raises(
        ValueError,
        match='CrossShapedWindowAttention expects stripe_width >= 1 and an '
        f'even num_heads, got stripe_width={width}, num_heads={heads}; '
        'stripe_width=None attends to the whole map',
    ):
        CrossShapedWindowAttention(8, heads, stripe_width=width)
