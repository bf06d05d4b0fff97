import pytest
import torch

from mmattn.attentions import WindowAttention
from mmattn.ops import resize_relative_position_bias_table


def test_padding_is_a_zero_token_before_the_projection():
    layer = WindowAttention(8, 2, window_size=4).double()
    torch.nn.init.normal_(layer.qkv.bias)
    x = torch.randn(1, 6, 7, 8).double()
    padded = torch.nn.functional.pad(x, (0, 0, 0, 1, 0, 2))
    torch.testing.assert_close(layer(x), layer(padded)[:, :6, :7])


@pytest.mark.parametrize('size, moves', [((7, 20), False), ((8, 9), True)])
def test_windows_shift_where_both_sides_exceed_them(size, moves):
    still = WindowAttention(8, 2).double()
    shifting = WindowAttention(8, 2, with_shift=True).double()
    shifting.load_state_dict(still.state_dict())
    x = torch.randn(1, *size, 8).double()
    assert torch.equal(still(x), shifting(x)) != moves


def test_a_checkpoint_with_another_window_is_resized():
    old, new = WindowAttention(8, 2), WindowAttention(8, 2, window_size=10)
    new.load_state_dict(old.state_dict(), strict=True)
    torch.testing.assert_close(
        new.relative_position_bias_table,
        resize_relative_position_bias_table(
            old.relative_position_bias_table, 10
        ),
    )
    # The state that was given is the caller's.
    assert len(old.state_dict()['relative_position_bias_table']) == 169


def test_wrong_window():
    with pytest.raises(ValueError, match='expects window_size >= 1, got 0'):
        WindowAttention(8, 2, window_size=0)
