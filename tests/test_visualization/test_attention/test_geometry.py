import pytest

from mmattn.visualization.attention.geometry import TokenGrid, fit_tokens


@pytest.mark.parametrize(
    'size, picture, cell',
    [
        ((32, 32), (128, 128), (4, 4)),
        # Rounded up on the way down: 333 / 4, then twice a half.
        ((84, 125), (333, 500), (4, 4)),
        ((11, 16), (333, 500), (32, 32)),
        ((2, 32), (33, 1000), (32, 32)),
        # Rounded down, by a stride that is no power of two.
        ((33, 50), (100, 150), (100 / 33, 3)),
    ],
)
def test_a_map_of_the_picture(size, picture, cell):
    assert fit_tokens(size, picture) == TokenGrid(size, cell)


@pytest.mark.parametrize('size', [(1, 341), (7, 49)])
def test_a_sequence_is_no_map_of_the_picture(size):
    assert fit_tokens(size, (128, 128)) is None


def test_the_token_of_a_pixel():
    grid = fit_tokens((3, 4), (40, 60))
    assert grid.cell == (16, 16)
    assert grid.token_at(15, 16) == (0, 1)
    assert grid.token_at(39, 59) == (2, 3)


def test_tokens_of_a_map_that_is_rounded_down_stay_on_it():
    assert TokenGrid((2, 2), (16, 16)).token_at(47, 5) == (1, 0)
