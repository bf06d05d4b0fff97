"""A model of mmdet, mmseg or mmpretrain, for one image instead of a set."""

import re
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmattn.cli.evaluation import read_dataset
from mmattn.cli.weights import refuse_foreign_weights
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


def load_weights(
    model: nn.Module,
    state: dict[str, Tensor],
    path: str,
    needed: str = 'backbone.',
) -> None:
    """Give a model the weights of a checkpoint that was trained with it.

    Args:
        model: The model.
        state: Tensors by name.
        path: Where they come from, for the message.
        needed: How the names begin of the parameters that the checkpoint has
            to have. Defaults to ``'backbone.'``.

    Raises:
        UsageError: If one of these is missing, or another shape than that of
            the model is found.
    """
    refuse_foreign_weights(model, path, needed)
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        wrong = re.findall(r'size mismatch for .+', str(error))
        if not wrong:
            raise
        first, *others = wrong
        more = f' ({len(others)} more)' if others else ''
        raise UsageError(
            f'a checkpoint of this model is expected, got {path}: '
            f'{first.rstrip(".")}{more}; give the config that it was trained '
            'with'
        ) from error


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
