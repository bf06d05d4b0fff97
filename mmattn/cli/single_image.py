"""A model of mmdet, mmseg or mmpretrain, for one image instead of a set."""

from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmattn.cli.evaluation import read_dataset
from mmattn.errors import UsageError


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config, in evaluation mode, weights as they come.

    Args:
        cfg: A config of any of the three codebases.
    """
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        return MODELS.build(model).eval()


def build_pipeline(cfg: Config) -> Callable[[dict], dict]:
    """The test pipeline of a config, without what loads the truth.

    Args:
        cfg: A config with a ``test_dataloader``.

    Raises:
        UsageError: If its data set has no pipeline.
    """
    dataset = read_dataset(cfg)
    if 'pipeline' not in dataset:
        raise UsageError(
            'a config is expected whose test data set has a pipeline, got '
            f'{cfg.filename} without one'
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
        model: A model of a host, or a backbone.
        inputs: Normalised images, ``(B, C, H, W)``.
    """
    getattr(model, 'extract_feat', model)(inputs)
