"""Build and count the model of a config of mmdet, mmseg or mmpretrain."""

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn

from mmattn.config import build_model

from .cost import Cost, count_cost


def build_for_counting(cfg: Config) -> nn.Module:
    """Build the model of a config on the CPU, with random weights."""
    built = build_model(cfg)
    # Sparse R-CNN does not initialize its learned proposals by itself.
    if hasattr(built, 'rpn_head'):
        built.rpn_head.init_weights()
    return built


def count_config(
    cfg: Config, shape: tuple[int, int], in_channels: int = 3
) -> Cost:
    """Count the model of a config on one image.

    The model runs in the mode ``'tensor'``: a prediction without the
    postprocessing into boxes and labels. The second stage of a detector gets
    the proposals of the untrained first stage and predicts masks for the
    first hundred of them.

    Args:
        cfg: A config of mmdet, mmseg or mmpretrain.
        shape: Height and width of the network's input, in pixels.
        in_channels: Channels of the image. Defaults to 3.
    """
    model = build_for_counting(cfg)
    names = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    metainfo = dict.fromkeys(names, shape) | dict(scale_factor=(1.0, 1.0))
    sample = BaseDataElement(metainfo=metainfo)
    # Sparse R-CNN reads the ground truth in this mode, too: no objects.
    sample.gt_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    image = torch.rand(1, in_channels, *shape)
    return count_cost(model, image, [sample])


def tested_shape(cfg: Config, model: nn.Module) -> tuple[int, int]:
    """Height and width, in pixels, of the first test image after padding.

    Args:
        cfg: A config of mmdet, mmseg or mmpretrain whose test data exists.
        model: Its model, whose data preprocessor pads.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batch = model.data_preprocessor(pseudo_collate([dataset[0]]), False)
    return tuple(batch['inputs'].shape[-2:])
