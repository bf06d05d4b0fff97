"""Load published checkpoints into whole models with a mmattn backbone."""

from collections import OrderedDict
from typing import Any

import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from mmattn.backbones.base import BaseBackbone

from .conversion import ConversionError, convert
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
