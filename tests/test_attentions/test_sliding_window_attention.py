import pytest
import torch

from mmattn.attentions import SlidingWindowAttention, WindowAttention


def test_a_full_stride_is_window_attention():
    plain = WindowAttention(8, 2, window_size=4).double()
    sliding = SlidingWindowAttention(8, 2, window_size=4, stride=4).double()
    sliding.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(1, 8, 12, 8).double()
    torch.testing.assert_close(sliding(x), plain(x))


def test_weights_of_another_stride_load_and_leave_the_stride():
    trained = SlidingWindowAttention(8, 2, stride=4)
    layer = SlidingWindowAttention(8, 2, stride=3)
    layer.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(layer.qkv.weight, trained.qkv.weight)
    assert layer.state_dict()['window_stride'] == layer.stride == 3


@pytest.mark.parametrize('stride', [1, 2, 3, 4])
def test_tokens_across_a_border_of_windows_meet(stride):
    layer = SlidingWindowAttention(8, 2, window_size=4, stride=stride)
    x = torch.randn(1, 8, 8, 8, requires_grad=True)
    layer(x)[0, 0, 3].sum().backward()
    reach = x.grad[0, 0].abs().sum(-1) > 0
    # The window from column 0 and, if any, the last that begins before 4.
    last = 3 // stride * stride
    assert reach.tolist() == [column < last + 4 for column in range(8)]


def test_what_lies_outside_of_the_map_is_not_attended_to():
    layer = SlidingWindowAttention(
        4, 1, window_size=7, with_relative_position=False
    ).double()
    x = torch.randn(1, 1, 1, 4).double().expand(1, 3, 5, 4)
    # Attending among equal tokens alone gives each its own value.
    want = layer.proj(layer.qkv(x)[..., 8:])
    torch.testing.assert_close(layer(x), want)


@pytest.mark.parametrize('stride', [0, 8])
def test_wrong_stride(stride):
    with pytest.raises(
        ValueError,
        match='SlidingWindowAttention expects 1 <= stride <= window_size, '
        f'got stride={stride}, window_size=7',
    ):
        SlidingWindowAttention(8, 2, stride=stride)
