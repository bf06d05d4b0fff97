"""Parts of a figure: panels, tinted images, marks, outlines.

Images are ``(H, W, 3)``, 0 to 255.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from .images import Size, TokenGrid

# Safe for color-blind readers. Values go from dark to bright. Groups of the
# first bisection are blue and red, later ones get neighboring shades.
HEAT = matplotlib.colormaps['inferno']
GROUPS = matplotlib.colormaps['RdYlBu_r']
_MARK = '#46f0f0'
_FADE = 0.75  # whiteness of the image outside of the area of interest

_PANEL, _MARGIN, _HEADER, _MIN_WIDTH = 1.66, 0.3, 1.0, 5.2  # inches
_MAX_ASPECT = 2.0  # higher or wider images get margins
_NORMAL, _SMALL = 8, 7  # font sizes


class Scene(NamedTuple):
    """The image and the layer that a figure shows.

    Attributes:
        picture: The network's input, ``(H, W, 3)`` uint8 RGB.
        pixels: Selected ``(row, column)`` of it.
        grid: Layout of the layer's tokens on it.
        title: Name of the layer, and a line that describes it.
        max_heads: Maximum number of heads to show, spread evenly.
    """

    picture: np.ndarray
    pixels: Sequence[Size]
    grid: TokenGrid
    title: str
    max_heads: int = 4

    def choose_heads(self, count: int) -> list[int]:
        """Indices of the heads to show, out of ``count``."""
        shown = min(count, self.max_heads)
        return [int(i) for i in np.linspace(0, count - 1, shown).round()]


def make_panels(
    scene: Scene, rows: int, columns: int, legend: str, colors: Colormap
) -> tuple[Figure, np.ndarray]:
    """Create a figure with a title, blank panels and a legend.

    Args:
        scene: What it shows.
        rows: Rows of panels.
        columns: Panels in a row.
        legend: Text that explains the panels and the colors.
        colors: Color map, shown above the legend.

    Returns:
        The figure and its axes, ``(rows, columns)``.
    """
    height, width = scene.picture.shape[:2]
    aspect = min(max(height / width, 1 / _MAX_ASPECT), _MAX_ASPECT)
    width = max(_MARGIN + columns * _PANEL, _MIN_WIDTH)
    height = _HEADER + rows * (_PANEL * aspect + _MARGIN)
    figure = Figure(figsize=(width, height), dpi=100, layout='compressed')
    blank = dict(xticks=[], yticks=[], frame_on=False)
    panels = figure.subplots(rows, columns, squeeze=False, subplot_kw=blank)
    name, _, description = scene.title.partition('\n')
    texts = dict(ha='left', fontsize=_NORMAL)
    title = figure.suptitle(f'{name}\n', x=0.01, weight='bold', **texts)
    texts.update(va='bottom', xycoords=title, annotation_clip=False)
    # On the blank line of the title.
    panels[0, 0].annotate(description, (0, 0), in_layout=False, **texts)
    bar = figure.colorbar(
        ScalarMappable(cmap=colors),
        ax=panels,
        location='bottom',
        ticks=[],
        aspect=100,
    )
    legend = textwrap.fill(legend, int(17 * width))
    bar.set_label(legend, fontsize=_SMALL)
    return figure, panels


def show(
    panel: Axes,
    picture: np.ndarray,
    title: str = '',
    row: str = '',
    note: str = '',
) -> None:
    """Show an image whose pixel (0, 0) starts at the point (0, 0).

    ``title`` stands above the first row of panels, ``row`` left of the panel
    and ``note`` below it.
    """
    height, width = picture.shape[:2]
    # Invisible, but it makes the file a third smaller.
    shown = picture.clip(0, 255).astype(np.uint8) // 4 * 4
    panel.imshow(shown, extent=(0, width, height, 0), interpolation='nearest')
    if panel.get_subplotspec().is_first_row():
        panel.set_title(title, fontsize=_NORMAL, pad=3)
    panel.set_ylabel(row, fontsize=_NORMAL, labelpad=3)
    panel.set_xlabel(note, fontsize=_SMALL, labelpad=2)


def tint(
    picture: np.ndarray,
    values: np.ndarray,
    colors: Colormap,
    grid: TokenGrid,
    opacity: float | np.ndarray = 1.0,
) -> np.ndarray:
    """Color the grey image by the values of tokens, ``(H', W')`` in [0, 1]."""
    size = picture.shape[:2]
    opacity = np.broadcast_to(opacity, values.shape)
    opacity = enlarge(opacity, grid, size)[..., None]
    above = enlarge(255 * colors(values)[..., :3], grid, size)
    return (1 - opacity) * grey(picture) + opacity * above


def spotlight(
    panel: Axes,
    scene: Scene,
    picture: np.ndarray,
    inside: np.ndarray,
    mask_grid: TokenGrid,
    pixel: Size,
    **texts: str,
) -> None:
    """Show a picture inside of an outlined mask; outside it is pale.

    Args:
        panel: Where to draw.
        scene: The image and its tokens.
        picture: Shown inside of the mask.
        inside: The mask, ``(H', W')`` bool.
        mask_grid: Its layout, not ``scene.grid`` with spatial reduction.
        pixel: ``(row, column)`` whose token is framed.
        **texts: Arguments of :func:`show`.
    """
    height, width = scene.picture.shape[:2]
    shown = enlarge(inside, mask_grid, (height, width))
    pale = (1 - _FADE) * grey(scene.picture) + _FADE * 255
    show(panel, np.where(shown[..., None], picture, pale), **texts)
    if not inside.all():
        x, y = (np.arange(-1, side + 1) + 0.5 for side in (width, height))
        line = dict(levels=[0.5], colors='black', linewidths=0.7)
        panel.contour(x, y, np.pad(shown, 1), **line)
        panel.set(xlim=(0, width), ylim=(height, 0))
    row, column = scene.grid.token_at(*pixel)
    cell_height, cell_width = scene.grid.cell
    corner = column * cell_width, row * cell_height
    around = [withStroke(linewidth=2.6, foreground='black')]
    style = dict(edgecolor=_MARK, linewidth=1.2, path_effects=around)
    frame = Rectangle(corner, cell_width, cell_height, fill=False, **style)
    panel.add_patch(frame)


def number_pixels(panel: Axes, pixels: Sequence[Size], first: int = 1) -> None:
    """Mark every pixel with a number, counting from ``first``."""
    for number, (row, column) in enumerate(pixels, start=first):
        panel.text(
            column + 0.5,
            row + 0.5,
            str(number),
            ha='center',
            va='center_baseline',
            fontsize=_SMALL,
            weight='bold',
            bbox=dict(boxstyle='circle,pad=0.15', facecolor=_MARK),
        )


def grey(picture: np.ndarray) -> np.ndarray:
    """The image without its colors."""
    return np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)


def enlarge(values: np.ndarray, grid: TokenGrid, picture: Size) -> np.ndarray:
    """Upsample the values of tokens, ``(H', W', ...)``, to ``(H, W, ...)``."""
    rows, columns = (
        np.minimum((np.arange(side) // cell).astype(int), n - 1)
        for side, cell, n in zip(picture, grid.cell, grid.size)
    )
    return values[rows[:, None], columns]
