"""Plot predictions of mmdet, mmseg and mmpretrain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image

# Distinct on dark and bright images (Sasha Trubetskoy's list).
_COLORS = (
    '#e6194b #3cb44b #ffe119 #4363d8 #f58231 '
    '#911eb4 #46f0f0 #f032e6 #bcf60c #fabebe'
).split()
_RIGHT, _WRONG = '#1a7f37', '#cf222e'
_PANEL_INCHES = 2.0
Samples = Sequence[BaseDataElement]


def predict_samples(runner: Runner, count: int) -> list[BaseDataElement]:
    """Predict images spread evenly over the validation set.

    Args:
        runner: A runner with a model and a validation loader.
        count: Maximum number of images.

    Returns:
        Data samples with ground truth and predictions.
    """
    loader = runner.val_dataloader
    last = len(loader.dataset) - 1
    indices = np.linspace(0, last, min(count, last + 1)).round().astype(int)
    batch = loader.collate_fn([loader.dataset[int(i)] for i in indices])
    runner.model.eval()
    with torch.no_grad():
        return runner.model.val_step(batch)


def plot_detections(
    samples: Samples,
    classes: Sequence[str],
    path: str | Path,
    score_thr: float = 0.5,
) -> None:
    """Draw the ground truth of each ``DetDataSample`` above the predictions.

    Args:
        samples: At least one data sample with boxes and masks.
        classes: Name of each label.
        path: File to write.
        score_thr: Predictions below this score are not drawn.
    """
    figure, axes = _panels(samples, 4, ('truth', 'prediction'))
    for sample, (top, bottom) in zip(samples, axes):
        found = sample.pred_instances
        found = found[found.scores >= score_thr]
        # The highest score last, on top of the others.
        found = found[found.scores.argsort()]
        _draw_instances(top, sample, sample.gt_instances, classes)
        _draw_instances(bottom, sample, found, classes)
    figure.savefig(path)


def plot_segmentations(
    samples: Samples, classes: Sequence[str], path: str | Path
) -> None:
    """Draw each image above the true and predicted map of a ``SegDataSample``.

    Args:
        samples: At least one data sample; class 0 is the background.
        classes: Name of each index.
        path: File to write.
    """
    titles = ('image', 'truth', 'prediction')
    figure, axes = _panels(samples, 6, titles)
    present = set()
    for sample, panels in zip(samples, axes):
        image = _read_image(sample)
        panels[0].imshow(image)
        for panel, part in zip(
            panels[1:], (sample.gt_sem_seg, sample.pred_sem_seg)
        ):
            labels = part.data[0].cpu().numpy()
            present |= {int(c) for c in np.unique(labels) if c > 0}
            panel.imshow(_overlay(image, labels))
    if present:
        handles = [
            Rectangle((0, 0), 1, 1, color=_color(c - 1), label=classes[c])
            for c in sorted(present)
        ]
        figure.legend(
            handles=handles,
            loc='outside lower center',
            ncols=len(handles),
            frameon=False,
        )
    figure.savefig(path)


def plot_classifications(
    samples: Samples, classes: Sequence[str], path: str | Path
) -> None:
    """Draw images with the predicted class, and the true class if wrong.

    Args:
        samples: At least one ``DataSample`` of mmpretrain.
        classes: Name of each label.
        path: File to write.
    """
    figure, axes = _panels(samples, 8, ('',))
    for sample, (panel,) in zip(samples, axes):
        truth, prediction = int(sample.gt_label), int(sample.pred_label)
        panel.imshow(_read_image(sample))
        text = f'{classes[prediction]}  {sample.pred_score[prediction]:.2f}'
        if truth != prediction:
            text += f'  (is {classes[truth]})'
        color = _RIGHT if truth == prediction else _WRONG
        panel.set_title(text, fontsize=9, color=color)
    figure.savefig(path)


def _panels(
    samples: Samples, columns: int, titles: Sequence[str]
) -> tuple[Figure, np.ndarray]:
    """A figure and the blank axes of each sample, ``(n, len(titles))``."""
    high = len(titles)
    rows = -(-len(samples) // columns)
    size = (columns * _PANEL_INCHES, rows * high * _PANEL_INCHES)
    figure = Figure(figsize=size, layout='constrained', dpi=100)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    axes = figure.subplots(
        rows * high,
        columns,
        squeeze=False,
        subplot_kw=dict(xticks=[], yticks=[], frame_on=False),
    )
    for row, panel in enumerate(axes[:, 0]):
        panel.set_ylabel(titles[row % high])
    axes = axes.reshape(rows, high, columns).swapaxes(1, 2)
    return figure, axes.reshape(-1, high)


def _draw_instances(
    panel: Axes,
    sample: BaseDataElement,
    instances: InstanceData,
    classes: Sequence[str],
) -> None:
    image = _read_image(sample)
    # mmdet has its own structures for the ground truth.
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    masks = getattr(instances.masks, 'masks', instances.masks)
    maps = np.zeros(image.shape[:2], dtype=int)
    for label, mask in zip(instances.labels, torch.as_tensor(masks).cpu()):
        maps[mask.numpy().astype(bool)] = label + 1
    panel.imshow(_overlay(image, maps, strength=0.55))
    texts = [classes[label] for label in instances.labels]
    if 'scores' in instances:
        texts = [f'{t} {s:.2f}' for t, s in zip(texts, instances.scores)]
    for box, label, text in zip(boxes.tolist(), instances.labels, texts):
        left, top, right, bottom = box
        color = _color(label)
        size = right - left, bottom - top
        panel.add_patch(
            Rectangle(box[:2], *size, fill=False, edgecolor=color, lw=1.2)
        )
        panel.text(
            left,
            max(top, 10),
            text,
            fontsize=6.5,
            va='bottom',
            color='white' if sum(to_rgb(color)) < 1.7 else 'black',
            bbox=dict(facecolor=color, edgecolor='none', pad=0.8),
        )


def _read_image(sample: BaseDataElement) -> np.ndarray:
    with Image.open(sample.img_path) as image:
        return np.asarray(image.convert('RGB'))


def _overlay(
    image: np.ndarray, labels: np.ndarray, strength: float = 0.7
) -> np.ndarray:
    """Tint pixels of class c > 0 with color c - 1 and fade the rest."""
    grey = image.mean(axis=2, keepdims=True)
    canvas = np.broadcast_to(0.3 * image + 0.7 * grey, image.shape).copy()
    for index in np.unique(labels):
        if index > 0:
            where = labels == index
            tint = 255 * np.array(to_rgb(_color(index - 1)))
            canvas[where] = (1 - strength) * image[where] + strength * tint
    return canvas.astype(np.uint8)


def _color(label: int) -> str:
    return _COLORS[label % len(_COLORS)]
