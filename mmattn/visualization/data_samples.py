"""Predict samples and read the data samples of mmdet, mmseg, mmpretrain."""

import numpy as np
import torch
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image

from mmattn.visualization.predictions import Detection, Instances


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


def read_detection(sample: BaseDataElement) -> Detection:
    """Read ground truth and prediction of a ``DetDataSample``."""
    return Detection(
        _read_image(sample),
        _read_instances(sample.gt_instances),
        _read_instances(sample.pred_instances),
    )


def read_segmentation(
    sample: BaseDataElement,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read image, true and predicted map of a ``SegDataSample``."""
    maps = (sample.gt_sem_seg.data, sample.pred_sem_seg.data)
    return _read_image(sample), *(m[0].cpu().numpy() for m in maps)


def read_classification(
    sample: BaseDataElement,
) -> tuple[np.ndarray, int, int, float]:
    """Read image, true and predicted label, score of a ``DataSample``."""
    prediction = int(sample.pred_label)
    return (
        _read_image(sample),
        int(sample.gt_label),
        prediction,
        float(sample.pred_score[prediction]),
    )


def _read_image(sample: BaseDataElement) -> np.ndarray:
    with Image.open(sample.metainfo['img_path']) as image:
        return np.asarray(image.convert('RGB'))


def _read_instances(instances: InstanceData) -> Instances:
    boxes, masks = instances.bboxes, instances.masks
    # mmdet has its own structures for the ground truth.
    boxes = getattr(boxes, 'tensor', boxes)
    masks = getattr(masks, 'masks', masks)
    scores = instances.get('scores')
    return Instances(
        np.asarray(boxes.cpu()),
        np.asarray(instances.labels.cpu()),
        _to_array(masks).astype(bool),
        None if scores is None else np.asarray(scores.cpu()),
    )


def _to_array(masks: torch.Tensor | np.ndarray) -> np.ndarray:
    return masks.cpu().numpy() if torch.is_tensor(masks) else masks
