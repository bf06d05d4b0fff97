"""Pictures of a benchmark's rows."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmattn.visualization.benchmarks import plot_cost, plot_growth


def row(model, mode, tokens, seconds):
    spread = dict(low=0.9 * seconds, median=seconds, high=1.2 * seconds)
    return dict(
        model=model,
        mode=mode,
        tokens=tokens,
        flops=10**9 * tokens,
        seconds=spread,
    )


ROWS = [
    row('swin', 'inference', 4, 0.1),
    row('boat', 'inference', 4, 0.2),
    row('swin', 'training', 4, 0.3),
    row('boat', 'training', 4, 0.5),
    row('swin', 'inference', 16, 0.3),
    row('boat', 'inference', 16, 0.7),
    row('swin', 'training', 16, 1.2),
    row('boat', 'training', 16, 1.7),
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were written."""
    written = []
    save = Figure.savefig

    def savefig(figure, *args, **kwargs):
        written.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', savefig)
    return written


def lines_of(axes):
    return {
        line.get_label(): [*map(list, line.get_data())]
        for line in axes.get_lines()
        if not line.get_label().startswith('_')
    }


def test_growth(figures, tmp_path):
    plot_growth(ROWS, tmp_path / 'growth.png')
    with Image.open(tmp_path / 'growth.png') as image:
        assert image.format == 'PNG' and image.size == (1100, 495)
    inference, training = figures[0].axes
    assert inference.get_title() == 'inference'
    assert inference.get_xscale() == inference.get_yscale() == 'log'
    lines = lines_of(training)
    assert lines['swin'] == [[4, 16], [300, 1200]]
    assert lines['boat'] == [[4, 16], [500, 1700]]
    # Four times the tokens, four times the time of the fastest.
    assert lines['in proportion to the tokens'][1] == [300, 1200]


def test_cost(figures, tmp_path):
    plot_cost(ROWS, matmul_rate=1e11, path=tmp_path / 'cost.png')
    assert (tmp_path / 'cost.png').stat().st_size > 1000
    inference, _ = figures[0].axes
    points = [c.lines[0].get_data() for c in inference.containers]
    # The first size of each: 4e9 operations, 2e9 multiply-adds.
    assert [(*map(float, xy[0]), *map(float, xy[1])) for xy in points] == [
        (2, 100),
        (2, 200),
    ]
    floor = lines_of(inference)['its matrix products alone']
    assert floor == [[0, 2], [0, pytest.approx(40)]]


def test_one_mode_has_one_column(figures, tmp_path):
    plot_growth(ROWS[:2], tmp_path / 'growth.png')
    assert len(figures[0].axes) == 1
