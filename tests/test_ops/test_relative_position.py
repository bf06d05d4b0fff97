import math

import pytest
import torch

from mmattn.ops import (
    relative_position_bias,
    relative_position_index,
    resize_relative_position_bias_table,
)

CPU = torch.device('cpu')


@pytest.mark.parametrize('M', [1, 2, 7])
def test_bias_looks_up_query_minus_key(M):
    table = torch.randn((2 * M - 1) ** 2, 3)
    bias = relative_position_bias(table, M)
    index = relative_position_index(M, CPU)
    assert bias.shape == (3, M * M, M * M)
    for query in range(M * M):
        for key in range(M * M):
            dy = query // M - key // M
            dx = query % M - key % M
            row = (dy + M - 1) * (2 * M - 1) + dx + M - 1
            assert index[query, key] == row
            assert torch.equal(bias[:, query, key], table[row])


def test_bias_gives_the_table_a_gradient():
    table = torch.zeros(9, 2, requires_grad=True)
    relative_position_bias(table, 2).sum().backward()
    pairs = torch.tensor([1.0, 2, 1, 2, 4, 2, 1, 2, 1])  # at each offset
    assert torch.equal(table.grad, pairs[:, None].expand(9, 2))


def test_table_of_another_window():
    with pytest.raises(ValueError) as error:
        relative_position_bias(torch.zeros(25, 3), 2)
    assert str(error.value) == (
        'relative_position_bias expects a table ((2M - 1)^2, heads) of window '
        'M, got (25, 3) and window_size=2; '
        'resize_relative_position_bias_table gives one'
    )


def cubic(t):
    """Keys' kernel with a = -0.75, the one of bicubic interpolation."""
    t = abs(t)
    if t <= 1:
        return 1.25 * t**3 - 2.25 * t**2 + 1
    if t < 2:
        return -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
    return 0.0


def resized_by_hand(table, old, new):
    """Weigh 4 x 4 entries around every new one, edges repeated."""
    square = table.reshape(old, old, -1)
    out = torch.zeros(new, new, table.shape[1], dtype=table.dtype)
    for i in range(new):
        for j in range(new):
            y, x = (n * (old - 1) / (new - 1) for n in (i, j))
            for dy in range(math.floor(y) - 1, math.floor(y) + 3):
                for dx in range(math.floor(x) - 1, math.floor(x) + 3):
                    row = min(max(dy, 0), old - 1)
                    column = min(max(dx, 0), old - 1)
                    weight = cubic(y - dy) * cubic(x - dx)
                    out[i, j] += weight * square[row, column]
    return out.reshape(new * new, -1)


@pytest.mark.parametrize('old, new', [(3, 5), (7, 8), (7, 4), (2, 7)])
def test_resize_equals_interpolation_by_hand(old, new):
    table = torch.randn((2 * old - 1) ** 2, 3, dtype=torch.float64)
    out = resize_relative_position_bias_table(table, new)
    want = resized_by_hand(table, 2 * old - 1, 2 * new - 1)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-12)


def test_resize_to_the_same_window():
    table = torch.randn(169, 3)
    assert resize_relative_position_bias_table(table, 7) is table


def test_resize_keeps_the_dtype(half):
    table = torch.randn(25, 3).to(half)
    out = resize_relative_position_bias_table(table, 7)
    assert out.dtype == half and out.shape == (169, 3)


@pytest.mark.parametrize('shape', [(24, 3), (16, 3), (0, 3), (25,), ()])
def test_resize_no_table(shape):
    with pytest.raises(ValueError) as error:
        resize_relative_position_bias_table(torch.zeros(shape), 7)
    assert str(error.value) == (
        'resize_relative_position_bias_table expects a table of shape '
        f'((2M - 1)^2, heads), got {shape}'
    )
