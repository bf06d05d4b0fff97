import pytest
import torch
import torch.nn.functional as F

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
        match=f'stripe_width={width}, num_heads={heads}',
    ):
        CrossShapedWindowAttention(8, heads, stripe_width=width)


def test_lepe_starts_like_a_depthwise_convolution():
    lepe = CrossShapedWindowAttention(96, 2).lepe
    assert lepe.weight.shape == (96, 1, 3, 3) and lepe.bias.shape == (96,)
    for values in (lepe.weight, lepe.bias):
        assert values.abs().max() <= 1 / 3
        assert values.abs().mean() > 0.1


def test_lepe_of_older_checkpoints_loads():
    layer = CrossShapedWindowAttention(8, 2)
    state = layer.state_dict()
    assert list(state)[-2:] == ['lepe.weight', 'lepe.bias']
    old = {k.replace('lepe', 'local_conv'): v + 1 for k, v in state.items()}
    want = {k: v + 1 for k, v in state.items()}
    layer.load_state_dict(old, strict=True)
    torch.testing.assert_close(dict(layer.state_dict()), want)


def test_lepe_is_a_convolution_of_the_values_in_each_stripe():
    layer = CrossShapedWindowAttention(8, 2, stripe_width=3).double()
    layer.proj = torch.nn.Identity()
    x = torch.randn(2, 6, 9, 8).double()
    v = layer.qkv(x)[..., 16:].permute(0, 3, 1, 2)
    with_lepe = layer(x)
    weight = layer.lepe.weight
    layer.lepe.weight = torch.nn.Parameter(torch.zeros_like(weight))
    lepe = (with_lepe - layer(x)).permute(0, 3, 1, 2)
    for column in range(0, 9, 3):
        stripe = (..., slice(column, column + 3))
        want = F.conv2d(v[:, :4][stripe], weight[:4], padding=1, groups=4)
        torch.testing.assert_close(lepe[:, :4][stripe], want)
