"""Draw predictions with the visualizers of mmdet, mmseg and mmpretrain."""

import tempfile
from pathlib import Path
from unittest import mock

import cv2
import mmcv
import numpy as np
import torch
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, PixelData
from mmengine.visualization import Visualizer
from torch import Tensor
from torchvision.transforms.functional import to_tensor
from torchvision.utils import make_grid, save_image

SCORE_THR = 0.5
MIN_SIDE = 256  # pixels: labels are unreadable on smaller pictures
GAP, HEADER = 4, 20  # pixels between pictures, and above them
RIGHT, WRONG = (26, 127, 55), (207, 34, 46)  # frames of classified images


def draw_predictions(
    runner: Runner, count: int, columns: int, path: Path
) -> None:
    """Draw predictions for images spread evenly over the validation set.

    Args:
        runner: A runner with a model, a validation loader and a visualizer.
        count: Maximum number of images, all of one size.
        columns: Pictures per row.
        path: File to write.
    """
    loader = runner.val_dataloader
    last = len(loader.dataset) - 1
    indices = np.linspace(0, last, min(count, last + 1)).round().astype(int)
    batch = loader.collate_fn([loader.dataset[int(i)] for i in indices])
    runner.model.eval()
    with torch.no_grad():
        samples = runner.model.val_step(batch)
    pictures = [draw_sample(runner.visualizer, x.cpu()) for x in samples]
    sheet = make_grid(pictures, columns, GAP, pad_value=1)
    if 'gt_label' not in samples[0]:
        sheet = add_header(sheet, pictures[0].shape[2])
    save_image(sheet, path)


def add_header(sheet: Tensor, width: int) -> Tensor:
    """Write above pictures of this width what their halves show."""
    header = np.full((HEADER, sheet.shape[2], 3), 255, np.uint8)
    for left in range(GAP, sheet.shape[2], width + GAP):
        for word, x in (('truth', left), ('prediction', left + width // 2)):
            font = (cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
            cv2.putText(header, word, (x, HEADER - 6), *font)
    return torch.cat([to_tensor(header), sheet], dim=1)


def draw_sample(visualizer: Visualizer, sample: BaseDataElement) -> Tensor:
    """Draw ground truth beside prediction; for a classifier, write both.

    Args:
        visualizer: That of the codebase, with the names of the classes.
        sample: Ground truth and prediction for an image file.

    Returns:
        The picture, RGB in 0..1, ``(3, H, W)``.
    """
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    scale = -(-MIN_SIDE // min(image.shape[:2]))
    image = mmcv.imrescale(image, float(scale))
    with tempfile.TemporaryDirectory() as folder:
        out = f'{folder}/picture.png'
        if 'gt_label' in sample:
            color = RIGHT if sample.gt_label == sample.pred_label else WRONG
            cv2.rectangle(image, (0, 0), image.shape[1::-1], color, 11)
            visualizer.visualize_cls(image, sample, out_file=out)
        elif 'gt_instances' in sample:
            enlarge_instances(sample, scale)
            # Left and right get the same colors: no random changes.
            name = 'mmdet.visualization.local_visualizer.jitter_color'
            with mock.patch(name, tuple):
                visualizer.add_datasample(
                    '', image, sample, out_file=out, pred_score_thr=SCORE_THR
                )
        else:
            for name in ('gt_sem_seg', 'pred_sem_seg'):
                labels = enlarge(getattr(sample, name).data, scale)
                setattr(sample, name, PixelData(data=labels))
            visualizer.add_datasample('', image, sample, out_file=out)
        picture = mmcv.imread(out, channel_order='rgb')
    return to_tensor(picture)


def enlarge_instances(sample: BaseDataElement, scale: int) -> None:
    """Enlarge the boxes and masks of a ``DetDataSample`` in place."""
    for instances in (sample.gt_instances, sample.pred_instances):
        instances.bboxes = instances.bboxes * scale
        # mmdet keeps the masks of the ground truth as an array.
        masks = getattr(instances.masks, 'masks', instances.masks)
        instances.masks = enlarge(torch.as_tensor(masks), scale)


def enlarge(maps: Tensor, scale: int) -> Tensor:
    """Repeat each pixel of ``(..., H, W)`` in both directions."""
    return maps.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
