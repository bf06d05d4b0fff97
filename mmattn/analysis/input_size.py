"""The size at which the network of a config sees the images of its test."""

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch import nn


def tested_shape(cfg: Config, model: nn.Module) -> tuple[int, int]:
    """Height and width, in pixels, of the first test image, padding included.

    Args:
        cfg: A config of any of the three codebases, its test data at hand.
        model: Its model, whose data preprocessor pads.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batch = model.data_preprocessor(pseudo_collate([dataset[0]]), False)
    return tuple(batch['inputs'].shape[-2:])
