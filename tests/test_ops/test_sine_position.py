import math

import pytest
import torch

from mmattn.ops import sine_position

CPU = torch.device('cpu')


def test_equals_the_formula():
    H, W, C = 3, 5, 8
    out = sine_position((H, W), C, CPU)
    for y in range(H):
        for x in range(W):
            want = []
            for place in ((y + 0.5) / H, (x + 0.5) / W):
                angles = [
                    2 * math.pi * place / 10000 ** (i / (C / 4))
                    for i in range(C // 4)
                ]
                want += [math.sin(a) for a in angles]
                want += [math.cos(a) for a in angles]
            torch.testing.assert_close(out[y, x], torch.tensor(want))


def test_maps_of_one_image_at_two_strides_agree():
    fine = sine_position((40, 24), 16, CPU)
    coarse = sine_position((20, 12), 16, CPU)
    # A coarse token lies in the middle of four fine ones.
    middle = (fine[4, 6] + fine[5, 7]) / 2
    assert (middle - coarse[2, 3]).abs().max() < 0.01
    assert (middle - coarse[3, 3]).abs().max() > 0.1


def test_every_place_has_its_own_encoding():
    places = sine_position((9, 14), 8, CPU).flatten(0, 1)
    distances = torch.cdist(places, places)
    distances.fill_diagonal_(1)
    assert distances.min() > 1e-3


def test_channels_that_four_does_not_divide():
    with pytest.raises(
        ValueError, match='num_channels to be a multiple of 4, got 6'
    ):
        sine_position((2, 2), 6, CPU)
