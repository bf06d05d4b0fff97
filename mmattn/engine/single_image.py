"""A model of mmdet, mmseg or mmpretrain, for one image instead of a set."""

from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmattn.engine.evaluation import read_dataset
from mmattn.engine.usage import UsageError
from mmattn.engine.weights import refuse_foreign_weights


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


def load_weights(
    model: nn.Module, state: dict[str, Tensor], path: str
) -> None:
    """Give a model the weights of a checkpoint that was trained with it.

    Args:
        model: The model.
        state: Tensors by name.
        path: Where they come from, for the message.

    Raises:
        UsageError: If the backbone does not get all of its weights.
    """
    refuse_foreign_weights(model, path, whole_backbone=True)
    model.load_state_dict(state, strict=False)


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
