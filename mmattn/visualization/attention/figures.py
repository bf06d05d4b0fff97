"""A figure for each explanation of an attention layer."""

from functools import singledispatch

import numpy as np
from matplotlib.figure import Figure

from .explanations import AttentionRows, Clusters, Explanation, Modulation
from .images import fit_tokens
from .panels import (
    GROUPS,
    HEAT,
    Scene,
    make_panels,
    number_pixels,
    show,
    spotlight,
    tint,
)

# Opacity of the colors over the grey image.
_MIN_TINT, _MAX_TINT, _CLUSTER_TINT = 0.5, 0.95, 0.75
# Brightness of the image: bright parts must not look like large weights.
_BRIGHTNESS = 0.6
# Smaller weights of the padding are not reported.
_MIN_PADDING_WEIGHT = 0.005
# Smaller weights are reported as "< ...".
_MIN_WEIGHT = 1e-4


@singledispatch
def plot_explanation(explanation: Explanation, scene: Scene) -> Figure:
    """Draw one figure."""
    raise TypeError(f'{type(explanation).__name__} has no figure')


@plot_explanation.register
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
        "what the pixel's token (small frame) attends to, from the smallest "
        'to the largest weight of the panel, given below it'
    )
    if not reach.all():
        legend += '; pale, outside of the outline: out of reach'
    columns = 1 + with_mean + len(heads)
    figure, axes = make_panels(scene, len(scene.pixels), columns, legend, HEAT)
    for i, pixel in enumerate(scene.pixels):
        maps = [(f'head {h}', weights[i, h], reach[i, h]) for h in heads]
        if with_mean:
            mean = (weights[i].mean(0), reach[i].any(0))
            maps.insert(0, ('mean of heads', *mean))
        place = f'pixel {i + 1}:\nrow {pixel[0]},\ncolumn {pixel[1]}'
        show(axes[i, 0], scene.picture, 'image', place)
        number_pixels(axes[i, 0], [pixel], first=i + 1)
        for panel, (name, values, inside) in zip(axes[i, 1:], maps):
            low, high = values[inside].min(), values[inside].max()
            note = f'{_percent(low)} to {_percent(high)} %'
            padding = 1 - values.sum()
            if padding > _MIN_PADDING_WEIGHT:
                note += f', padding {_percent(padding)} %'
            heat = _normalized(np.where(inside, values, low))
            opacity = _MIN_TINT + (_MAX_TINT - _MIN_TINT) * heat
            dark = _BRIGHTNESS * scene.picture
            tinted = tint(dark, heat, HEAT, keys, opacity)
            texts = dict(title=name, note=note)
            spotlight(panel, scene, tinted, inside, keys, pixel, **texts)
    return figure


@plot_explanation.register
def _plot_clusters(clusters: Clusters, scene: Scene) -> Figure:
    """One row of panels per head, one panel per bisection."""
    levels = [level.cpu().numpy() for level in clusters.levels]
    picture, grid = scene.picture, scene.grid
    heads = scene.choose_heads(len(levels[0]))
    figure, axes = make_panels(
        scene,
        len(heads),
        1 + len(levels) + len(scene.pixels),
        'tokens of one color are in one group; the closer two colors, the '
        'later the bisection that separated them; right: the clusters of the '
        'pixels, whose tokens attend to them and to part of the sibling',
        GROUPS,
    )
    for head, (first, *panels) in zip(heads, axes):
        show(first, picture, 'image', f'head {head}')
        number_pixels(first, scene.pixels)
        for depth, (panel, level) in enumerate(zip(panels, levels), start=1):
            count, groups = 2**depth, level[head]
            values = (groups + 0.5) / count
            tinted = tint(picture, values, GROUPS, grid, _CLUSTER_TINT)
            title = f'{count} groups of {groups.size / count:.4g}'
            show(panel, tinted, title)
            number_pixels(panel, scene.pixels)
        for i, pixel in enumerate(scene.pixels):
            inside = groups == groups[grid.token_at(*pixel)]
            panel, title = panels[len(levels) + i], f'with pixel {i + 1}'
            spotlight(panel, scene, picture, inside, grid, pixel, title=title)
    return figure


@plot_explanation.register
def _plot_modulation(modulation: Modulation, scene: Scene) -> Figure:
    """The image, the magnitude of each scale and of the modulator."""
    names = [f'{side} x {side} convolution' for side in modulation.sides]
    maps = [*modulation.scales, modulation.modulator]
    figure, axes = make_panels(
        scene,
        1,
        1 + len(maps),
        'outputs of the convolutions, and the modulator that is made of them '
        'and multiplies the values: from the smallest to the largest mean '
        'magnitude of the panel, given below it',
        HEAT,
    )
    show(axes[0, 0], scene.picture, 'image')
    for panel, name, values in zip(axes[0, 1:], [*names, 'modulator'], maps):
        values = values.detach().float().cpu().numpy()
        shown = tint(scene.picture, _normalized(values), HEAT, scene.grid)
        note = f'{values.min():.2g} to {values.max():.2g}'
        show(panel, shown, name, note=note)
    return figure


def _percent(part: float) -> str:
    if part < _MIN_WEIGHT:
        return f'< {100 * _MIN_WEIGHT:g}'
    return f'{100 * part:.0f}' if part >= 0.1 else f'{100 * part:.2g}'


def _normalized(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, np.finfo(values.dtype).tiny)
