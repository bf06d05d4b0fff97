"""A figure for each explanation of an attention layer."""

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
    number_pixels,
    outline,
    show,
)

# Opacity of the colors over the grey image.
_MIN_TINT, _MAX_TINT, _CLUSTER_TINT = 0.5, 0.95, 0.75
# Brightness of the image: bright parts must not look like large weights.
_BRIGHTNESS = 0.6
# Smaller weights of the padding are not reported.
_MIN_PADDING_WEIGHT = 0.005
# Smaller weights are reported as "< ...".
_MIN_WEIGHT = 1e-4


class Scene(NamedTuple):
    """The image and the layer that a figure shows.

    Attributes:
        picture: The network's input, ``(H, W, 3)`` uint8 RGB.
        pixels: Selected ``(row, column)`` of it.
        grid: Layout of the layer's tokens on it.
        title: Name of the layer.
        subtitle: Description of the layer.
        max_heads: Maximum number of heads to show, spread evenly.
    """

    picture: np.ndarray
    pixels: Sequence[Size]
    grid: TokenGrid
    title: str
    subtitle: str
    max_heads: int = 4

    def choose_heads(self, count: int) -> list[int]:
        """Indices of the heads to show, out of ``count``."""
        shown = min(count, self.max_heads)
        return [int(i) for i in np.linspace(0, count - 1, shown).round()]

    def make_panels(self, rows: int, columns: int, *args) -> tuple:
        """A figure for the image; see :func:`make_panels`."""
        size = self.picture.shape[:2]
        return make_panels(
            rows, columns, size, self.title, self.subtitle, *args
        )


def plot_explanation(explanation: Explanation, scene: Scene) -> Figure:
    """Draw one figure."""
    return _PLOTS[type(explanation)](explanation, scene)


def _plot_rows(rows: AttentionRows, scene: Scene) -> Figure:
    """One row of panels per pixel, one panel per head."""
    weights = rows.weights.detach().float().cpu().numpy()
    reach = np.ones_like(weights, dtype=bool)
    if rows.reach is not None:
        reach = rows.reach.cpu().numpy()
    # With spatial reduction the keys are fewer and larger than the queries.
    size = scene.picture.shape[:2]
    keys = fit_tokens(weights.shape[-2:], size) or scene.grid
    heads = scene.choose_heads(weights.shape[1])
    with_mean = weights.shape[1] > 1
    legend = (
        'from the smallest to the largest weight of the panel, given below '
        "it; small frame: the pixel's token"
    )
    if not reach.all():
        legend += '; pale: out of reach'
    figure, axes = scene.make_panels(
        len(scene.pixels), 1 + with_mean + len(heads), legend, HEAT, True
    )
    for i, pixel in enumerate(scene.pixels):
        maps = [(f'head {h}', weights[i, h], reach[i, h]) for h in heads]
        if with_mean:
            mean = (weights[i].mean(0), reach[i].any(0))
            maps.insert(0, ('mean of heads', *mean))
        show(axes[i, 0], scene.picture)
        number_pixels(axes[i, 0], [pixel], first=i + 1)
        place = f'pixel {i + 1}: row {pixel[0]}, column {pixel[1]}'
        label_panel(axes[i, 0], '' if i else 'image', place)
        for panel, (name, values, inside) in zip(axes[i, 1:], maps):
            show(panel, _heat(scene.picture, values, inside, keys))
            if not inside.all():
                outline(panel, inside, keys)
            mark_token(panel, scene.grid, pixel)
            low, high = values[inside].min(), values[inside].max()
            note = f'{_percent(low)} to {_percent(high)} %'
            padding = 1 - values.sum()
            if padding > _MIN_PADDING_WEIGHT:
                note += f', padding {_percent(padding)} %'
            label_panel(panel, '' if i else name, note=note)
    return figure


def _plot_clusters(clusters: Clusters, scene: Scene) -> Figure:
    """One row of panels per head, one panel per bisection."""
    levels = [level.cpu().numpy() for level in clusters.levels]
    picture, size = scene.picture, scene.picture.shape[:2]
    heads = scene.choose_heads(len(levels[0]))
    figure, axes = scene.make_panels(
        len(heads),
        1 + len(levels) + len(scene.pixels),
        'the closer two colors, the later the bisection that separated the '
        'groups; right: the last groups of the pixels',
        GROUPS,
    )
    for row, head in enumerate(heads):
        panels = iter(axes[row])
        panel = next(panels)
        show(panel, picture)
        number_pixels(panel, scene.pixels)
        label_panel(panel, '' if row else 'image', f'head {head}')
        for depth, level in enumerate(levels, start=1):
            count, groups = 2**depth, level[head]
            colors = 255 * GROUPS((groups + 0.5) / count)[..., :3]
            colors = enlarge(colors, scene.grid, size) - grey(picture)
            panel = next(panels)
            show(panel, grey(picture) + _CLUSTER_TINT * colors)
            number_pixels(panel, scene.pixels)
            title = f'{count} groups of {groups.size / count:.4g}'
            label_panel(panel, '' if row else title)
        for number, pixel in enumerate(scene.pixels, start=1):
            inside = groups == groups[scene.grid.token_at(*pixel)]
            panel = next(panels)
            shown = enlarge(inside, scene.grid, size)[..., None]
            show(panel, np.where(shown, picture, fade(picture)))
            outline(panel, inside, scene.grid)
            mark_token(panel, scene.grid, pixel)
            label_panel(panel, '' if row else f'with pixel {number}')
    return figure


def _plot_modulation(modulation: Modulation, scene: Scene) -> Figure:
    """The image, the magnitude of each scale and of the modulator."""
    names = [f'{side} x {side} convolution' for side in modulation.sides]
    maps = [*modulation.scales, modulation.modulator]
    figure, axes = scene.make_panels(
        1,
        1 + len(maps),
        'from the smallest to the largest magnitude of the panel (mean '
        'absolute value over channels), given below it',
        HEAT,
        True,
    )
    show(axes[0, 0], scene.picture)
    label_panel(axes[0, 0], 'image')
    for panel, name, values in zip(axes[0, 1:], [*names, 'modulator'], maps):
        values = values.detach().float().cpu().numpy()
        colors = 255 * HEAT(_normalized(values))[..., :3]
        show(panel, enlarge(colors, scene.grid, scene.picture.shape[:2]))
        note = f'{values.min():.2g} to {values.max():.2g}'
        label_panel(panel, name, note=note)
    return figure


def _heat(
    picture: np.ndarray,
    values: np.ndarray,
    inside: np.ndarray,
    grid: TokenGrid,
) -> np.ndarray:
    """Tint the tokens inside by their values and fade the others."""
    size = picture.shape[:2]
    heat = _normalized(np.where(inside, values, values[inside].min()))
    colors = enlarge(255 * HEAT(heat)[..., :3], grid, size)
    tint = _MIN_TINT + (_MAX_TINT - _MIN_TINT) * heat
    tint = enlarge(tint, grid, size)[..., None]
    shown = enlarge(inside, grid, size)[..., None]
    tinted = (1 - tint) * _BRIGHTNESS * grey(picture) + tint * colors
    return np.where(shown, tinted, fade(picture))


def _percent(part: float) -> str:
    if part < _MIN_WEIGHT:
        return f'< {100 * _MIN_WEIGHT:g}'
    return f'{100 * part:.0f}' if part >= 0.1 else f'{100 * part:.2g}'


def _normalized(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, np.finfo(values.dtype).tiny)


_PLOTS: dict[type, Callable[..., Figure]] = {
    AttentionRows: _plot_rows,
    Clusters: _plot_clusters,
    Modulation: _plot_modulation,
}
