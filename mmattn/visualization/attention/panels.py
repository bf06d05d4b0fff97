"""Parts of a figure: panels, tinted images, marks, outlines.

Images are ``(H, W, 3)``, 0 to 255.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from .geometry import Size, TokenGrid

# Safe for color-blind readers. Values go from dark to bright. Groups of the
# first bisection are blue and red, later ones get neighboring shades.
HEAT = matplotlib.colormaps['inferno']
GROUPS = matplotlib.colormaps['RdYlBu_r']
_MARK = '#46f0f0'
_FADE = 0.75  # whiteness of the image outside of the area of interest

# All lengths are inches. Axes are placed explicitly, so all panels have the
# same size and no draw is needed to lay them out.
_PANEL = 1.6
_MAX_ASPECT = 2.0  # higher or wider images get margins
_GAP = 0.06
_LEFT, _HEAD, _TITLE, _NOTE, _LINE = 0.3, 0.5, 0.2, 0.2, 0.14
_MIN_WIDTH = 5.2
_DPI = 100
_NORMAL, _SMALL = 8, 7


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
    step = high + _GAP + (_NOTE if with_notes else 0)
    width = max(_LEFT + columns * (_PANEL + _GAP), _MIN_WIDTH)
    bar = 0.8
    lines = textwrap.wrap(legend, int(17 * (width - _LEFT - bar)))
    top = _HEAD + _TITLE
    height = top + rows * step + 0.2 + _LINE * len(lines)
    figure = Figure(figsize=(width, height))

    def place(x: float, y: float, w: float, h: float) -> Axes:
        """Add axes at ``(x, y)`` from the upper left corner."""
        axes = figure.add_axes(
            (x / width, 1 - (y + h) / height, w / width, h / height)
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def write(x: float, y: float, text: str, **font: object) -> None:
        figure.text(x / width, 1 - y / height, text, va='top', **font)

    write(_LEFT, 0.08, title, fontsize=_NORMAL, weight='bold')
    write(_LEFT, 0.26, subtitle, fontsize=_NORMAL)
    under = top + rows * step + 0.08
    strip = place(_LEFT, under + 0.02, bar, 0.1)
    strip.imshow(np.linspace(0, 1, 256)[None], cmap=colors, aspect='auto')
    write(
        _LEFT + bar + 0.1,
        under,
        '\n'.join(lines),
        fontsize=_SMALL,
        linespacing=1.3,
    )
    panels = [
        place(_LEFT + j * (_PANEL + _GAP), top + i * step, _PANEL, high)
        for i in range(rows)
        for j in range(columns)
    ]
    return figure, np.array(panels).reshape(rows, columns)


def save_figure(figure: Figure, path: Path) -> None:
    """Write an opaque, optimized PNG."""
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    image.save(path, optimize=True)


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
    """Upsample the values of tokens to pixels.

    Args:
        values: ``(H', W', ...)``, one per token.
        grid: Layout of the tokens.
        picture: Height and width of the image.

    Returns:
        ``(H, W, ...)``.
    """
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
    panel.add_patch(
        Rectangle(
            (column * width, row * height),
            width,
            height,
            fill=False,
            edgecolor=_MARK,
            linewidth=1.2,
            path_effects=[withStroke(linewidth=2.6, foreground='black')],
        )
    )


def number_pixel(panel: Axes, number: int, pixel: Size) -> None:
    """Draw a dot and a number on a pixel."""
    row, column = pixel
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


def number_pixels(panel: Axes, pixels: Sequence[Size]) -> None:
    """Draw a dot and a number, starting at 1, on every pixel."""
    for number, pixel in enumerate(pixels, start=1):
        number_pixel(panel, number, pixel)


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
