from itertools import pairwise

import numpy as np
import pytest
import torch

from mmattn.visualization.attention import (
    AttentionRows,
    Clusters,
    Modulation,
)
from mmattn.visualization.attention.figures import Scene, plot_explanation
from mmattn.visualization.attention.images import fit_tokens

SIZE = (32, 48)


def scene(pixels=((5, 6),), max_heads=4):
    picture = np.full((*SIZE, 3), 100, np.uint8)
    grid = fit_tokens((8, 12), SIZE)
    return Scene(picture, pixels, grid, 'a layer', max_heads)


def panels(figure):
    """Title, row label, note and image of each panel, without the legend."""
    return [
        (
            axes.get_title(),
            axes.get_ylabel(),
            axes.get_xlabel(),
            np.asarray(axes.images[0].get_array()).astype(int),
        )
        for axes in figure.axes[:-1]
    ]


def test_the_largest_weight_is_the_brightest():
    weights = torch.full((1, 2, 8, 12), 0.002)
    weights[0, 0, 2, 3] = 0.3
    weights[0, 1, 6, 9] = 0.2
    reach = torch.zeros(1, 2, 8, 12, dtype=torch.bool)
    reach[0, :, 2:7, 3:10] = True
    found = panels(plot_explanation(AttentionRows(weights, reach), scene()))
    assert [title for title, *_ in found] == [
        'image',
        'mean of heads',
        'head 0',
        'head 1',
    ]
    assert found[0][1] == 'pixel 1:\nrow 5,\ncolumn 6'
    for (*_, picture), (row, column) in zip(found[2:], [(2, 3), (6, 9)]):
        # The image is grey: yellow means a large weight.
        heat = picture[..., 0] - picture[..., 2]
        where = np.unravel_index(heat.argmax(), heat.shape)
        assert (where[0] // 4, where[1] // 4) == (row, column)
        pale = picture[0, 0]
        assert (pale == pale[0]).all() and pale[0] > 150
    assert found[2][2] == '0.2 to 30 %, padding 51 %'


@pytest.mark.parametrize('size', [(480, 640), (480, 960), (640, 480)])
def test_texts_do_not_overlap(size):
    picture = np.full((*size, 3), 100, np.uint8)
    pixels = [(size[0] - 9, 100), (200, 300), (0, size[1] - 1)]
    title = 'backbone.stages.0\nBOATAttention, 2 heads'
    tokens = size[0] // 40, size[1] // 40
    shown = Scene(picture, pixels, fit_tokens(tokens, size), title)
    figure = plot_explanation(AttentionRows(torch.rand(3, 2, *tokens)), shown)
    figure.canvas.draw()
    first = figure.axes[0]
    name, description = figure._suptitle, first.texts[0]
    assert name.get_weight() == 'bold' != description.get_weight()
    assert name.get_text() + description.get_text() == title
    rows = [axes.yaxis.label for axes in figure.axes[:-1:4]]
    assert len(rows) == 3
    for column in ([description, first.title], [description, *rows]):
        boxes = [text.get_window_extent() for text in column]
        for above, below in pairwise(boxes):
            assert above.y0 >= below.y1
    # The description stands on the blank second line of the title.
    first_line = name.get_window_extent().y1 - 10
    assert description.get_window_extent().y1 <= first_line


def test_equal_weights():
    rows = AttentionRows(torch.full((2, 1, 4, 6), 1 / 24))
    found = panels(plot_explanation(rows, scene(((0, 0), (31, 47)))))
    assert [title for title, *_ in found[:2]] == ['image', 'head 0']
    assert [note for _, _, note, _ in found[1::2]] == ['4.2 to 4.2 %'] * 2


def test_heads_are_spread_evenly():
    rows = AttentionRows(torch.rand(1, 7, 8, 12))
    found = panels(plot_explanation(rows, scene(max_heads=3)))
    assert [title for title, *_ in found[2:]] == ['head 0', 'head 3', 'head 6']


def test_tokens_of_a_group_have_one_color():
    fine = torch.arange(96).remainder(4).view(1, 8, 12)
    found = panels(
        plot_explanation(Clusters((fine // 2, fine)), scene(((0, 0), (0, 5))))
    )
    titles = [title for title, *_ in found]
    assert titles == [
        'image',
        '2 groups of 48',
        '4 groups of 24',
        'with pixel 1',
        'with pixel 2',
    ]
    for count, (*_, picture) in zip((2, 4), found[1:3]):
        tokens = picture[::4, ::4].reshape(-1, 3)
        seen = {tuple(color) for color in tokens}
        assert len(seen) == count
        labels = (fine // (4 // count)).flatten().tolist()
        assert len({(*c, n) for c, n in zip(tokens, labels)}) == count
    for label, (*_, picture) in enumerate(found[3:]):
        kept = (picture[::4, ::4] == 100).all(axis=-1)
        np.testing.assert_array_equal(kept, fine[0] == label)


def test_scales_and_modulator():
    scales = torch.rand(2, 8, 12)
    scales[1, 7, 11] = 5
    found = panels(
        plot_explanation(
            Modulation((3, 5), scales, torch.rand(8, 12)), scene()
        )
    )
    assert [title for title, *_ in found] == [
        'image',
        '3 x 3 convolution',
        '5 x 5 convolution',
        'modulator',
    ]
    bright = found[2][3].sum(-1)
    assert bright[28:, 44:].min() == bright.max() > bright[:28].max()
    assert found[2][2].endswith(' to 5')


@pytest.mark.parametrize('kind', [AttentionRows, Clusters])
def test_many_panels_get_a_wide_figure(kind):
    few, many = (
        plot_explanation(
            AttentionRows(torch.rand(1, n, 8, 12))
            if kind is AttentionRows
            else Clusters((torch.zeros(1, 8, 12, dtype=torch.long),) * n),
            scene(max_heads=16),
        ).get_size_inches()
        for n in (4, 10)
    )
    assert many[0] - few[0] == pytest.approx(6 * 1.66) and few[1] >= many[1]
