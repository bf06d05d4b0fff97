"""Pictures of what attention layers do: a figure for each explanation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .explanations import AttentionRows, Clusters, Explanation, Modulation
from .geometry import Size, TokenGrid, fit_tokens
from .panels import (
    GROUPS,
    HEAT,
    enlarge,
    fade,
    grey,
    label_panel,
    make_panels,
    mark_token,
    number_pixel,
    number_pixels,
    outline,
    show,
)

# How much of a panel is colour, the rest being the picture in grey.
_LEAST_TINT, _MOST_TINT, _CLUSTER_TINT = 0.5, 0.95, 0.75
# Bright parts of the picture must not look like large weights.
_DARKENED = 0.6
# Less attention to the padding is not mentioned.
_LEAST_LOST = 0.005
# Weights below this are not told apart in words.
_LEAST_SHOWN = 1e-4


class Scene(NamedTuple):
    """What a figure is drawn on.

    Attributes:
        picture: What the network saw, ``(H, W, 3)`` uint8 RGB.
        pixels: Chosen ``(row, column)`` of it.
        grid: Where the layer's tokens lie on it.
        title: Which layer it is.
        subtitle: What kind of layer it is.
        max_heads: Heads to show at most, spread evenly.
    """

    picture: np.ndarray
    pixels: Sequence[Size]
    grid: TokenGrid
    title: str
    subtitle: str
    max_heads: int = 4

    def choose_heads(self, count: int) -> list[int]:
        """Which of ``count`` heads to show."""
        shown = min(count, self.max_heads)
        return [int(i) for i in np.linspace(0, count - 1, shown).round()]


def plot_explanation(explanation: Explanation, scene: Scene) -> Figure:
    """Draw one figure."""
    return _PLOTS[type(explanation)](explanation, scene)


def _plot_rows(rows: AttentionRows, scene: Scene) -> Figure:
    """One row of panels for each pixel, one panel for each head."""
    weights = rows.weights.detach().float().cpu().numpy()
    reach = np.ones_like(weights, dtype=bool)
    if rows.reach is not None:
        reach = rows.reach.cpu().numpy()
    size = scene.picture.shape[:2]
    # Keys may be fewer than queries, and their tokens larger.
    keys = fit_tokens(weights.shape[-2:], size) or scene.grid
    heads = scene.choose_heads(weights.shape[1])
    with_mean = weights.shape[1] > 1
    figure, axes = make_panels(
        len(scene.pixels),
        1 + with_mean + len(heads),
        size,
        scene.title,
        scene.subtitle,
        'from the smallest to the largest weight in the panel, which stand '
        "below it; small frame: the pixel's token"
        + ('' if reach.all() else '; pale: what it cannot attend to'),
        HEAT,
        with_notes=True,
    )
    for i, pixel in enumerate(scene.pixels):
        maps = [(f'head {h}', weights[i, h], reach[i, h]) for h in heads]
        if with_mean:
            mean = (weights[i].mean(0), reach[i].any(0))
            maps.insert(0, ('mean of all heads', *mean))
        show(axes[i, 0], scene.picture)
        number_pixel(axes[i, 0], i + 1, pixel)
        label_panel(
            axes[i, 0],
            '' if i else 'picture',
            f'pixel {i + 1}: row {pixel[0]}, column {pixel[1]}',
        )
        for panel, (name, values, inside) in zip(axes[i, 1:], maps):
            show(panel, _heat(scene.picture, values, inside, keys))
            if not inside.all():
                outline(panel, inside, keys)
            mark_token(panel, scene.grid, pixel)
            low, high = values[inside].min(), values[inside].max()
            note = f'{_percent(low)} to {_percent(high)} %'
            lost = 1 - values.sum()
            if lost > _LEAST_LOST:
                note += f', padding {_percent(lost)} %'
            label_panel(panel, '' if i else name, note=note)
    return figure


def _plot_clusters(clusters: Clusters, scene: Scene) -> Figure:
    """One row of panels for each head, one panel for each bisection."""
    levels = [level.cpu().numpy() for level in clusters.levels]
    size = scene.picture.shape[:2]
    heads = scene.choose_heads(len(levels[0]))
    figure, axes = make_panels(
        len(heads),
        1 + len(levels) + len(scene.pixels),
        size,
        scene.title,
        scene.subtitle,
        'the nearer two colours, the later the bisection that parted the '
        'groups; right: the last groups that hold the pixels',
        GROUPS,
    )
    for row, head in enumerate(heads):
        panels = iter(axes[row])
        panel = next(panels)
        show(panel, scene.picture)
        number_pixels(panel, scene.pixels)
        label_panel(panel, '' if row else 'picture', f'head {head}')
        for depth, level in enumerate(levels, start=1):
            count, groups = 2**depth, level[head]
            panel = next(panels)
            show(panel, _tint_groups(scene.picture, groups, count, scene.grid))
            number_pixels(panel, scene.pixels)
            title = f'{count} groups of {groups.size / count:.4g}'
            label_panel(panel, '' if row else title)
        for number, pixel in enumerate(scene.pixels, start=1):
            inside = groups == groups[scene.grid.token_at(*pixel)]
            panel = next(panels)
            shown = enlarge(inside, scene.grid, size)[..., None]
            show(panel, np.where(shown, scene.picture, fade(scene.picture)))
            outline(panel, inside, scene.grid)
            mark_token(panel, scene.grid, pixel)
            label_panel(panel, '' if row else f'with pixel {number}')
    return figure


def _plot_modulation(modulation: Modulation, scene: Scene) -> Figure:
    """The picture, the magnitude of each scale, that of the modulator."""
    size = scene.picture.shape[:2]
    maps = [
        (f'{side} x {side} convolution', scale)
        for side, scale in zip(modulation.sides, modulation.scales)
    ]
    maps.append(('modulator', modulation.modulator))
    figure, axes = make_panels(
        1,
        1 + len(maps),
        size,
        scene.title,
        scene.subtitle,
        'from the smallest to the largest magnitude in the panel (mean of '
        'the absolute values of all channels), which stand below it',
        HEAT,
        with_notes=True,
    )
    show(axes[0, 0], scene.picture)
    label_panel(axes[0, 0], 'picture')
    for panel, (name, values) in zip(axes[0, 1:], maps):
        values = values.detach().float().cpu().numpy()
        colours = 255 * HEAT(_normalised(values))[..., :3]
        show(panel, enlarge(colours, scene.grid, size))
        note = f'{values.min():.2g} to {values.max():.2g}'
        label_panel(panel, name, note=note)
    return figure


def _tint_groups(
    picture: np.ndarray, groups: np.ndarray, count: int, grid: TokenGrid
) -> np.ndarray:
    """Give every group a colour; the picture stays visible below."""
    colours = 255 * GROUPS((groups + 0.5) / count)[..., :3]
    colours = enlarge(colours, grid, picture.shape[:2])
    return (1 - _CLUSTER_TINT) * grey(picture) + _CLUSTER_TINT * colours


def _heat(
    picture: np.ndarray,
    values: np.ndarray,
    inside: np.ndarray,
    grid: TokenGrid,
) -> np.ndarray:
    """Tint the tokens inside by their values, let the others fade."""
    size = picture.shape[:2]
    heat = _normalised(np.where(inside, values, values[inside].min()))
    colours = enlarge(255 * HEAT(heat)[..., :3], grid, size)
    tint = _LEAST_TINT + (_MOST_TINT - _LEAST_TINT) * heat
    tint = enlarge(tint, grid, size)[..., None]
    shown = enlarge(inside, grid, size)[..., None]
    tinted = (1 - tint) * _DARKENED * grey(picture) + tint * colours
    return np.where(shown, tinted, fade(picture))


def _percent(part: float) -> str:
    if part < _LEAST_SHOWN:
        return f'< {100 * _LEAST_SHOWN:g}'
    return f'{100 * part:.0f}' if part >= 0.1 else f'{100 * part:.2g}'


def _normalised(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, np.finfo(values.dtype).tiny)


_PLOTS: dict[type, Callable[..., Figure]] = {
    AttentionRows: _plot_rows,
    Clusters: _plot_clusters,
    Modulation: _plot_modulation,
}
