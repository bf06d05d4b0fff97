"""Load published checkpoints into whole models with a mmattn backbone."""

from collections import OrderedDict
from typing import Any

import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from mmattn.backbones.base import BaseBackbone

from .conversion import ConversionError, convert
from .fitting import describe_checkpoint, load_and_compare
from .loading import unwrap

# Their keys are in mmattn's names.
_OWN = ('backbone.stem.', 'backbone.integrator.')


def rename_published(model: nn.Module, state_dict: dict[str, Any]) -> dict:
    """Rename a published checkpoint for a model that loads it.

    Args:
        model: The model. Those without a mmattn backbone in ``backbone``, and
            those in a wrapper, are left alone.
        state_dict: Content of the checkpoint.

    Returns:
        The renamed tensors, those of the head included; ``state_dict`` itself
        if it is in mmattn's names already or of no known format.
    """
    model = getattr(model, 'module', model)
    if not isinstance(getattr(model, 'backbone', None), BaseBackbone):
        return state_dict
    if any(key.startswith(_OWN) for key in state_dict):
        return state_dict
    tensors = {
        key: value
        for key, value in unwrap(state_dict).items()
        if isinstance(value, Tensor)
    }
    try:
        converted = convert(tensors, strict=False)
    except ConversionError:
        return state_dict
    renamed = OrderedDict(converted.whole())
    for name in converted.added:
        del renamed[f'backbone.{name}']
    for name in converted.unused:
        renamed[name] = tensors[name]
    print_log(
        f'converted a checkpoint of format {converted.source}', 'current'
    )
    return renamed


def check_fits(
    model: nn.Module, state_dict: dict[str, Any], path: str
) -> None:
    """Check that a model can load a checkpoint, or parts of it.

    Args:
        model: The model.
        state_dict: Content of the checkpoint, in the model's names.
        path: The checkpoint, for messages.

    Raises:
        ValueError: If no tensor fits, one has NaN or infinite values, or one
            would be cast.
    """
    state = {k: x for k, x in state_dict.items() if isinstance(x, Tensor)}
    try:
        fit = load_and_compare(model, state)
        if fit.nonfinite:
            raise ValueError(f'{fit.nonfinite[0]} has NaN or infinite values')
        if fit.kinds:
            raise ValueError(
                f'{fit}; save its weights as floating-point numbers'
            )
        if fit.loaded == 0:
            raise ValueError(
                f'{fit}.{describe_checkpoint(state)} Give a checkpoint of '
                'this model to its init_cfg, or weights of its backbone to '
                'the init_cfg of the backbone; tools/convert_checkpoint.py '
                'converts published ones'
            )
    except ValueError as error:
        raise ValueError(
            f'checkpoint {path} does not fit {type(model).__name__}: {error}'
        ) from error
