"""Build a model of mmdet, mmseg or mmpretrain from a config, and count it."""

import copy

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn

from .cost import Cost, count_cost


def build_for_counting(cfg: Config) -> nn.Module:
    """Build the model of a config with random weights.

    Args:
        cfg: A config of any of the three codebases.

    Returns:
        The model, on the CPU.
    """
    model = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        built = MODELS.build(model)
    # Proposals, learned or predicted, start spread over the image; without
    # this the second stage would see whatever was in memory.
    if hasattr(built, 'rpn_head'):
        built.rpn_head.init_weights()
    return built


def count_config(
    cfg: Config, shape: tuple[int, int], in_channels: int = 3
) -> Cost:
    """Count the model of a config on one image.

    What runs is what the codebases call the mode ``'tensor'``: all parts of
    the prediction, without what turns it into boxes and labels. A detector of
    two stages works on the proposals of its untrained first stage, and draws
    masks for the first hundred of them.

    Args:
        cfg: A config of any of the three codebases.
        shape: Height and width of the image that the network sees, in
            pixels.
        in_channels: Channels of the image. Defaults to 3.

    Returns:
        The cost of the model and of each of its modules.
    """
    model = build_for_counting(cfg)
    sample = BaseDataElement(
        metainfo=dict(
            img_shape=shape,
            ori_shape=shape,
            pad_shape=shape,
            batch_input_shape=shape,
            scale_factor=(1.0, 1.0),
        )
    )
    # Sparse R-CNN asks for the truth here too: there are no objects.
    sample.gt_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    image = torch.rand(1, in_channels, *shape)
    return count_cost(model, image, [sample])
