"""Synthetic images and annotations for each algorithm."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from mmattn.config import nested_dicts

from .edits import get_at
from .unsupported import UnsupportedSwap, find_network

Size = tuple[int, int]
# Sizes of the images: not square, multiples of the coarsest stride. The larger
# ones are for algorithms with coarser maps.
SIZES: tuple[Size, ...] = ((64, 96), (128, 192), (320, 512))
SIZE = SIZES[0]
# Batch normalization needs more than one value per channel.
_BATCH = 2
# Boxes (left, top, right, bottom) in every image.
_BOXES = ((4, 4, 40, 36), (30, 20, 90, 60))
_CLASSIFIERS = ('ImageClassifier', 'BaseReID', 'ImageToImageRetriever')


def make_batch(
    config: dict, codebase: str, training: bool, size: Size = SIZE
) -> dict:
    """Make a batch as a data loader would return it.

    Args:
        config: The whole config.
        codebase: Codebase of the config.
        training: Whether it is for a loss or for a prediction.
        size: Height and width of the images, at least ``SIZE``.

    Returns:
        ``dict(inputs=..., data_samples=...)``.
    """
    if codebase == 'mmseg':
        return _segmentation(config, size)
    if config['model']['type'] in _CLASSIFIERS:
        return _classification(config)
    if codebase == 'mmdet':
        return _detection_batch(config, training, size)
    return _views(config)


def loads_masks(config: dict) -> bool:
    """Whether the data loader returns masks; some assigners depend on it."""
    loader = config.get('train_dataloader')
    return not loader or any(
        node.get('with_mask') or 'LoadPanoptic' in str(node.get('type'))
        for _, node in nested_dicts(loader)
    )


def _images(config: dict, count: int, size: Size = SIZE) -> list[Tensor]:
    """Random images with the channels that the backbone expects."""
    try:
        backbone = get_at(config, find_network(config))['backbone']
    except UnsupportedSwap:
        backbone = {}
    shape = (count, backbone.get('in_channels') or 3, *size)
    return list(torch.randint(0, 256, shape, dtype=torch.uint8))


def _classes(node: Any) -> int:
    """The smallest ``num_classes`` in a model config."""
    found = (each.get('num_classes') for _, each in nested_dicts(node))
    return min((x for x in found if x and isinstance(x, int)), default=0)


def _classification(config: dict) -> dict:
    model = config['model']
    if model['type'] == 'BaseReID':
        return _identities(config)
    from mmpretrain.structures import DataSample

    classes = _classes(model.get('head')) or 2
    multi = str(get_at(model, ('head', 'type'), '')).startswith('MultiLabel')
    samples = []
    for label in (0, classes - 1):
        sample = DataSample().set_gt_label([label] if multi else label)
        if multi:
            sample.set_gt_score(torch.eye(classes)[label])
        samples.append(sample)
    return dict(inputs=_images(config, 2), data_samples=samples)


def _views(config: dict) -> dict:
    """Several views of each image, for self-supervised algorithms."""
    from mmpretrain.structures import DataSample

    crops = get_at(config, ('model', 'head', 'loss', 'num_crops'), [2])
    inputs = [
        torch.stack(_images(config, _BATCH, (64, 64)))
        for _ in range(sum(crops))
    ]
    return dict(inputs=inputs, data_samples=[DataSample()] * _BATCH)


def _identities(config: dict) -> dict:
    from mmdet.structures import ReIDDataSample

    # A triplet loss needs two images of each person.
    labels = 0, 0, 1, 1
    samples = [ReIDDataSample().set_gt_label(label) for label in labels]
    images = _images(config, len(samples), (256, 128))
    return dict(inputs=images, data_samples=samples)


def _segmentation(config: dict, size: Size) -> dict:
    from mmseg.structures import SegDataSample

    classes = _classes(config['model']) or 2
    samples = []
    for _ in range(_BATCH):
        sample = SegDataSample(
            metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size)
        )
        # Squares of 8 x 8 pixels, so that classes have an area.
        labels = torch.randint(0, classes, (1, 1, size[0] // 8, size[1] // 8))
        labels = labels.repeat_interleave(8, 2).repeat_interleave(8, 3)[0]
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    images = _images(config, len(samples), size)
    return dict(inputs=images, data_samples=samples)


def _detection_batch(config: dict, training: bool, size: Size) -> dict:
    model = config['model']
    preprocessor = model.get('data_preprocessor') or {}
    if model['type'] == 'SoftTeacher' and training:
        branches = ('sup', 'unsup_teacher', 'unsup_student')
        batches = {name: _detection(config, True, size) for name in branches}
        return {
            key: {name: batch[key] for name, batch in batches.items()}
            for key in ('inputs', 'data_samples')
        }
    tracks = preprocessor.get('type') == 'TrackDataPreprocessor'
    if tracks and not (training and preprocessor.get('use_det_processor')):
        return _video(config, training, size)
    return _detection(config, training, size)


def _detection(config: dict, training: bool, size: Size) -> dict:
    # Some detectors only predict on single images.
    count = _BATCH if training else 1
    samples = [_detection_sample(config, i, size) for i in range(count)]
    images = _images(config, len(samples), size)
    return dict(inputs=images, data_samples=samples)


def _detection_sample(config: dict, index: int, size: Size) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    height, width = size
    masks = np.zeros((len(_BOXES), height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, _BOXES):
        mask[top:bottom, left:right] = 1
    model = config['model']
    labels = torch.arange(len(_BOXES)) % (_classes(model) or 2)
    sample = DetDataSample(
        metainfo=dict(
            img_id=index,
            img_path='',
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
            flip=False,
            border=(0, 0, 0, 0),  # CenterNet
            homography_matrix=np.eye(3, dtype=np.float32),  # SoftTeacher
            frame_id=index,
            ori_video_length=_BATCH,
            text=('cat', 'dog'),  # prompt
            custom_entities=True,
        )
    )
    boxes = torch.tensor(_BOXES, dtype=torch.float32)
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes),
        labels=labels,
        instances_ids=torch.arange(len(_BOXES)),
    )
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes[:0]),
        labels=labels[:0],
        instances_ids=labels[:0],
    )
    if loads_masks(config):
        for found, part in (
            (sample.gt_instances, masks),
            (sample.ignored_instances, masks[:0]),
        ):
            found.masks = BitmapMasks(part, height, width)
    detector = model.get('detector') or model
    if 'rpn_head' not in detector:  # Fast R-CNN
        sample.proposals = InstanceData(
            bboxes=boxes, scores=torch.ones(len(boxes))
        )
    stuff = torch.from_numpy(masks.any(0)).long()[None]
    sample.gt_sem_seg = PixelData(sem_seg=stuff)
    return sample


def _video(config: dict, training: bool, size: Size) -> dict:
    """A clip of two frames, the second with a reference to the first."""
    from mmdet.structures import TrackDataSample

    clip = TrackDataSample(
        metainfo=dict(key_frames_inds=[0], ref_frames_inds=[1])
    )
    frames = [_detection_sample(config, index, size) for index in range(2)]
    for frame in frames:  # boxes of videos are not unwrapped later
        for found in (frame.gt_instances, frame.ignored_instances):
            found.bboxes = found.bboxes.tensor
    clip.video_data_samples = frames if training else frames[:1]
    count = len(clip.video_data_samples)
    inputs = [torch.stack(_images(config, count, size))]
    return dict(inputs=inputs, data_samples=[clip])
