"""Parts of a figure: panels, tinted images, marks, outlines.

Images are ``(H, W, 3)``, 0 to 255.
"""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from .geometry import Size, TokenGrid

# Safe for color-blind readers. Values go from dark to bright. Groups of the
# first bisection are blue and red, later ones get neighboring shades.
HEAT = matplotlib.colormaps['inferno']
GROUPS = matplotlib.colormaps['RdYlBu_r']
_MARK = '#46f0f0'
_FADE = 0.75  # whiteness of the image outside of the area of interest

# Inches. A layout engine would have to draw the figure twice.
_PANEL, _GAP, _LEFT, _TOP = 1.6, 0.06, 0.3, 0.7
_NOTE, _LINE, _BAR, _MIN_WIDTH = 0.2, 0.14, 0.8, 5.2
_MAX_ASPECT = 2.0  # higher or wider images get margins
_NORMAL, _SMALL = 8, 7  # font sizes


def make_panels(
    rows: int,
    columns: int,
    picture: Size,
    title: str,
    subtitle: str,
    legend: str,
    colors: Colormap,
    with_notes: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Create a figure with a title, blank panels and a legend.

    Args:
        rows: Rows of panels.
        columns: Panels in a row.
        picture: Height and width of the image in the panels.
        title: First line, bold.
        subtitle: Second line.
        legend: Text that explains the panels and the colors.
        colors: Color map, shown next to the legend.
        with_notes: Leave room for a line below each panel.

    Returns:
        The figure and its axes, ``(rows, columns)``.
    """
    ratio = picture[0] / picture[1]
    high = _PANEL * min(max(ratio, 1 / _MAX_ASPECT), _MAX_ASPECT)
    between = _GAP + _NOTE * with_notes
    right = _LEFT + columns * (_PANEL + _GAP)
    bottom = _TOP + rows * (high + between)
    width = max(right, _MIN_WIDTH)
    lines = textwrap.wrap(legend, int(17 * (width - _LEFT - _BAR)))
    height = bottom + 0.2 + _LINE * len(lines)
    figure = Figure(figsize=(width, height), dpi=100)
    panels = figure.subplots(
        rows,
        columns,
        squeeze=False,
        subplot_kw=dict(xticks=[], yticks=[], frame_on=False),
        gridspec_kw=dict(
            left=_LEFT / width,
            right=(right - _GAP) / width,
            top=1 - _TOP / height,
            bottom=1 - (bottom - between) / height,
            wspace=_GAP / _PANEL,
            hspace=between / high,
        ),
    )

    def write(x: float, y: float, text: str, **font: object) -> None:
        figure.text(x / width, 1 - y / height, text, va='top', **font)

    write(_LEFT, 0.08, title, fontsize=_NORMAL, weight='bold')
    write(_LEFT, 0.26, subtitle, fontsize=_NORMAL)
    text = '\n'.join(lines)
    write(_LEFT + _BAR + 0.1, bottom + 0.08, text, fontsize=_SMALL)
    low = 1 - (bottom + 0.2) / height
    strip = figure.add_axes((_LEFT / width, low, _BAR / width, 0.1 / height))
    strip.imshow(np.linspace(0, 1, 256)[None], cmap=colors, aspect='auto')
    strip.set_axis_off()
    return figure, panels


def label_panel(
    panel: Axes, title: str = '', row: str = '', note: str = ''
) -> None:
    """Write above, left of and below a panel."""
    panel.set_title(title, fontsize=_NORMAL, pad=3)
    panel.set_ylabel(row, fontsize=_NORMAL, labelpad=3)
    panel.set_xlabel(note, fontsize=_SMALL, labelpad=2)


def grey(picture: np.ndarray) -> np.ndarray:
    """The image without its colors."""
    return np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)


def fade(picture: np.ndarray) -> np.ndarray:
    """The image, grey and pale."""
    return (1 - _FADE) * grey(picture) + _FADE * 255


def enlarge(values: np.ndarray, grid: TokenGrid, picture: Size) -> np.ndarray:
    """Upsample the values of tokens, ``(H', W', ...)``, to ``(H, W, ...)``."""
    rows, columns = (
        np.minimum((np.arange(side) // cell).astype(int), n - 1)
        for side, cell, n in zip(picture, grid.cell, grid.size)
    )
    return values[rows[:, None], columns]


def show(panel: Axes, picture: np.ndarray) -> None:
    """Show an image whose pixel (0, 0) starts at the point (0, 0)."""
    height, width = picture.shape[:2]
    # Invisible, but it makes the file a third smaller.
    shown = picture.clip(0, 255).astype(np.uint8) // 4 * 4
    panel.imshow(shown, extent=(0, width, height, 0), interpolation='nearest')


def mark_token(panel: Axes, grid: TokenGrid, pixel: Size) -> None:
    """Frame the token that contains a pixel."""
    (row, column), (height, width) = grid.token_at(*pixel), grid.cell
    frame = Rectangle(
        (column * width, row * height),
        width,
        height,
        fill=False,
        edgecolor=_MARK,
        linewidth=1.2,
        path_effects=[withStroke(linewidth=2.6, foreground='black')],
    )
    panel.add_patch(frame)


def number_pixels(panel: Axes, pixels: Sequence[Size], first: int = 1) -> None:
    """Draw a dot and a number on every pixel, counting from ``first``."""
    for number, (row, column) in enumerate(pixels, start=first):
        panel.plot(
            column + 0.5,
            row + 0.5,
            'o',
            color=_MARK,
            markersize=4,
            markeredgecolor='black',
        )
        # Above and to the right, if there is room.
        width, height = panel.get_xlim()[1], panel.get_ylim()[0]
        is_right, is_high = column > 0.9 * width, row < 0.1 * height
        panel.annotate(
            str(number),
            (column, row),
            textcoords='offset points',
            xytext=(-3 if is_right else 3, -3 if is_high else 3),
            ha='right' if is_right else 'left',
            va='top' if is_high else 'bottom',
            fontsize=_NORMAL,
            weight='bold',
            color=_MARK,
            path_effects=[withStroke(linewidth=1.8, foreground='black')],
        )


def outline(panel: Axes, inside: np.ndarray, grid: TokenGrid) -> None:
    """Draw the border of the tokens in a mask ``(H', W')``."""
    height, width = grid.cell
    padded = np.pad(inside, 1)
    lines = []
    for row, column in np.argwhere(padded[1:] != padded[:-1]):
        y, x = row * height, (column - 1) * width
        lines.append(((x, y), (x + width, y)))
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        y, x = (row - 1) * height, column * width
        lines.append(((x, y), (x, y + height)))
    panel.add_collection(LineCollection(lines, colors='black', linewidths=0.7))
