"""Run a model of mmdet, mmseg or mmpretrain on one image."""

from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmattn.cli.evaluation import read_dataset
from mmattn.errors import UsageError


def build_pipeline(cfg: Config) -> Callable[[dict], dict]:
    """The test pipeline of a config, without the steps that load annotations.

    Args:
        cfg: A config with a ``test_dataloader``.

    Raises:
        UsageError: If its data set has no pipeline.
    """
    dataset = read_dataset(cfg)
    if 'pipeline' not in dataset:
        raise UsageError(
            f'the test data set of {cfg.filename} needs a pipeline, which '
            'prepares the image'
        )
    steps = [
        step
        for step in dataset.pipeline
        if 'Annotations' not in str(step['type'])
    ]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        return Compose(steps)


@torch.no_grad()
def run_features(model: nn.Module, inputs: Tensor) -> None:
    """Run the backbone and the neck of a model; a bare backbone as it is.

    Args:
        model: A model of a codebase, or a backbone.
        inputs: Normalised images, ``(B, C, H, W)``.
    """
    getattr(model, 'extract_feat', model)(inputs)
