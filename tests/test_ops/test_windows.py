import pytest
import torch

from mmattn.ops import (
    merge_windows,
    pad_map,
    padded_size,
    shifted_window_bias,
    split_windows,
)

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    'size, window, want',
    [
        ((9, 14), (7, 7), (14, 14)),
        ((1, 1), (7, 7), (7, 7)),
        ((6, 8), (2, 3), (6, 9)),
        ((5, 3), (1, 1), (5, 3)),
    ],
)
def test_padded_size(size, window, want):
    assert padded_size(size, window) == want


def test_pad_map_grows_at_the_bottom_and_at_the_right():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float16)
    out = pad_map(x, (4, 6))
    assert out.shape == (2, 4, 6, 5) and out.dtype == x.dtype
    assert torch.equal(out[:, :3, :4], x)
    assert not out[:, 3:].any() and not out[:, :, 4:].any()
    assert pad_map(x, (3, 4)) is x


def test_split_windows_holds_them_in_raster_order():
    x = torch.randn(2, 4, 9, 5)
    windows = split_windows(x, (2, 3))
    assert windows.shape == (2, 6, 6, 5)
    for i in range(2):
        for j in range(3):
            want = x[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            assert torch.equal(windows[:, 3 * i + j], want.flatten(1, 2))


@pytest.mark.parametrize(
    'size, window',
    [((4, 9), (2, 3)), ((7, 7), (7, 7)), ((6, 2), (1, 1)), ((8, 4), (8, 2))],
)
def test_merge_windows_undoes_split_windows(size, window):
    x = torch.randn(2, *size, 5)
    windows = split_windows(x, window)
    assert torch.equal(merge_windows(windows, window, size), x)


@pytest.mark.parametrize('size, window', [((5, 9), (2, 3)), ((4, 8), (2, 3))])
def test_window_that_does_not_divide(size, window):
    with pytest.raises(ValueError) as error:
        split_windows(torch.zeros(1, *size, 5), window)
    assert str(error.value) == (
        'split_windows expects a map that the window divides, got map '
        f'{size[0]}x{size[1]} and window {window[0]}x{window[1]}; pad the map '
        'to padded_size first'
    )


@pytest.mark.parametrize(
    'size, window, shift',
    [
        ((14, 21), (7, 7), (3, 3)),
        ((6, 4), (3, 2), (2, 1)),
        ((4, 4), (4, 4), (1, 3)),
        ((6, 4), (3, 4), (1, 0)),
    ],
)
def test_shifted_window_bias_parts_both_ends(size, window, shift):
    bias = shifted_window_bias(size, window, shift, CPU)
    y, x = torch.meshgrid(*map(torch.arange, size), indexing='ij')
    places = torch.stack((y, x), dim=-1)[None]
    rolled = places.roll((-shift[0], -shift[1]), dims=(1, 2))
    windows = split_windows(rolled, window)[0].tolist()
    assert bias.shape[0] == len(windows)
    for n, tokens in enumerate(windows):
        for i, (row, column) in enumerate(tokens):
            for j, (other_row, other_column) in enumerate(tokens):
                # Neighbours before the roll are still less than a window away.
                near = (
                    abs(row - other_row) < window[0]
                    and abs(column - other_column) < window[1]
                    and (row < shift[0]) == (other_row < shift[0])
                    and (column < shift[1]) == (other_column < shift[1])
                )
                assert bias[n, i, j] == (0 if near else -torch.inf)


def test_unshifted_bias_is_zero():
    assert not shifted_window_bias((4, 6), (2, 3), (0, 0), CPU).any()
