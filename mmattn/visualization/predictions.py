"""Plot predictions next to the ground truth.

Images are ``(H, W, 3)`` uint8 RGB, boxes ``(n, 4)`` as left, top, right,
bottom in pixels, masks ``(n, H, W)`` bool, labels ``(n,)`` class indices.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Distinct on dark and bright images (Sasha Trubetskoy's list).
_COLORS = (
    '#e6194b',
    '#3cb44b',
    '#ffe119',
    '#4363d8',
    '#f58231',
    '#911eb4',
    '#46f0f0',
    '#f032e6',
    '#bcf60c',
    '#fabebe',
)
_RIGHT, _WRONG = '#1a7f37', '#cf222e'
_PANEL_INCHES = 2.0
_DPI = 100


class Instances(NamedTuple):
    """Objects of one image.

    Attributes:
        boxes: ``(n, 4)``.
        labels: ``(n,)``.
        masks: ``(n, H, W)`` bool.
        scores: ``(n,)`` in [0, 1], or None for the ground truth.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    scores: np.ndarray | None = None


class Detection(NamedTuple):
    """An image with ground truth and predictions."""

    image: np.ndarray
    truth: Instances
    prediction: Instances


def plot_detections(
    samples: Sequence[Detection],
    classes: Sequence[str],
    path: str | Path,
    score_thr: float = 0.5,
    columns: int = 4,
) -> None:
    """Draw the ground truth of each image above the predictions.

    Args:
        samples: At least one image.
        classes: Name of each label.
        path: File to write.
        score_thr: Predictions below this score are not drawn.
        columns: Images per row.

    Raises:
        ValueError: If there are no samples.
    """
    figure, axes = _panels(samples, columns, panels_per_sample=2)
    for index, sample in enumerate(samples):
        row, column = divmod(index, columns)
        top, bottom = axes[2 * row, column], axes[2 * row + 1, column]
        _draw_instances(top, sample.image, sample.truth, classes)
        # The highest score last, on top of the others.
        order = np.argsort(sample.prediction.scores, kind='stable')
        ranked = _select(sample.prediction, order)
        kept = _select(ranked, ranked.scores >= score_thr)
        _draw_instances(bottom, sample.image, kept, classes)
        if column == 0:
            top.set_ylabel('truth')
            bottom.set_ylabel('prediction')
    figure.savefig(path, dpi=_DPI)


def plot_segmentations(
    samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    classes: Sequence[str],
    path: str | Path,
    columns: int = 6,
) -> None:
    """Draw the image above the true and the predicted map of each sample.

    Args:
        samples: Image, true and predicted map, ``(H, W)`` class indices with
            0 for the background.
        classes: Name of each index.
        path: File to write.
        columns: Samples per row.

    Raises:
        ValueError: If there are no samples.
    """
    figure, axes = _panels(samples, columns, panels_per_sample=3)
    for index, (image, truth, prediction) in enumerate(samples):
        row, column = divmod(index, columns)
        panels = axes[3 * row : 3 * row + 3, column]
        panels[0].imshow(image)
        panels[1].imshow(_overlay(image, truth))
        panels[2].imshow(_overlay(image, prediction))
        for panel, title in zip(panels, ('image', 'truth', 'prediction')):
            if column == 0:
                panel.set_ylabel(title)
    present = sorted(
        {int(c) for _, *maps in samples for m in maps for c in np.unique(m)}
    )
    handles = [
        Rectangle((0, 0), 1, 1, color=_color(index - 1))
        for index in present
        if index > 0
    ]
    names = [classes[index] for index in present if index > 0]
    if handles:
        figure.legend(
            handles,
            names,
            loc='outside lower center',
            ncols=len(handles),
            frameon=False,
        )
    figure.savefig(path, dpi=_DPI)


def plot_classifications(
    samples: Sequence[tuple[np.ndarray, int, int, float]],
    classes: Sequence[str],
    path: str | Path,
    columns: int = 8,
) -> None:
    """Draw images with the predicted class, and the true class if wrong.

    Args:
        samples: Image, true label, predicted label and its score in [0, 1].
        classes: Name of each label.
        path: File to write.
        columns: Images per row.

    Raises:
        ValueError: If there are no samples.
    """
    figure, axes = _panels(samples, columns, panels_per_sample=1)
    for index, (image, truth, prediction, score) in enumerate(samples):
        panel = axes[divmod(index, columns)]
        panel.imshow(image)
        text = f'{classes[prediction]}  {score:.2f}'
        if truth != prediction:
            text += f'  (is {classes[truth]})'
        color = _RIGHT if truth == prediction else _WRONG
        panel.set_title(text, fontsize=9, color=color)
    figure.savefig(path, dpi=_DPI)


def _panels(
    samples: Sequence, columns: int, panels_per_sample: int
) -> tuple[Figure, np.ndarray]:
    """Create a figure with blank axes ``(rows, columns)``."""
    if len(samples) == 0:
        raise ValueError('there are no samples to plot')
    rows = -(-len(samples) // columns) * panels_per_sample
    size = (columns * _PANEL_INCHES, rows * _PANEL_INCHES)
    figure = Figure(figsize=size, layout='constrained')
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure, axes


def _draw_instances(
    panel: Axes,
    image: np.ndarray,
    instances: Instances,
    classes: Sequence[str],
) -> None:
    maps = np.zeros(image.shape[:2], dtype=int)
    for label, mask in zip(instances.labels, instances.masks):
        maps[mask] = label + 1
    panel.imshow(_overlay(image, maps, strength=0.55))
    for index, (box, label) in enumerate(
        zip(instances.boxes, instances.labels)
    ):
        left, top, right, bottom = box
        color = _color(label)
        panel.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=color,
                linewidth=1.2,
            )
        )
        text = classes[label]
        if instances.scores is not None:
            text += f' {instances.scores[index]:.2f}'
        dark = sum(to_rgb(color)) < 1.7
        panel.text(
            left,
            max(top, 10),
            text,
            fontsize=6.5,
            va='bottom',
            color='white' if dark else 'black',
            bbox=dict(facecolor=color, edgecolor='none', pad=0.8),
        )


def _overlay(
    image: np.ndarray, classes: np.ndarray, strength: float = 0.7
) -> np.ndarray:
    """Tint pixels of class c > 0 with color c - 1 and fade the rest."""
    grey = image.mean(axis=2, keepdims=True)
    canvas = np.broadcast_to(0.3 * image + 0.7 * grey, image.shape).copy()
    for index in np.unique(classes):
        if index > 0:
            where = classes == index
            tint = 255 * np.array(to_rgb(_color(index - 1)))
            canvas[where] = (1 - strength) * image[where] + strength * tint
    return canvas.astype(np.uint8)


def _color(label: int) -> str:
    return _COLORS[label % len(_COLORS)]


def _select(instances: Instances, kept: np.ndarray) -> Instances:
    return Instances(
        *(None if field is None else field[kept] for field in instances)
    )
