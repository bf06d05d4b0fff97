"""Build models that are run once and never trained, without initialization."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

# Size of the shared numbers: the weights of usual models are smaller.
_SHARED = 1 << 24
_SCALE = 0.02
_RANDOM = (
    'kaiming_normal_',
    'kaiming_uniform_',
    'normal_',
    'trunc_normal_',
    'uniform_',
    'xavier_normal_',
    'xavier_uniform_',
)
# Smaller weights are initialized as usual.
_SMALL = 1 << 14


@cache
def shared_numbers() -> Tensor:
    """Random numbers ``(2 ** 24,)`` that large weights are views of.

    Call it before forking, so that all processes share them.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_SHARED, generator=generator) * _SCALE


@contextmanager
def shared_weights() -> Iterator[None]:
    """Make large weights views of the same random numbers.

    Drawing tens of millions of random numbers takes longer than running the
    model on a small image. Such a model must not be trained.
    """
    original = {name: getattr(nn.init, name) for name in _RANDOM}
    for name, function in original.items():
        setattr(nn.init, name, _sharing(function))
    try:
        yield
    finally:
        for name, function in original.items():
            setattr(nn.init, name, function)


def _sharing(function: Callable) -> Callable:
    def initialize(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        count = tensor.numel()
        large = _SMALL <= count <= _SHARED and tensor.is_leaf
        if not large or tensor.device.type != 'cpu':
            return function(tensor, *args, **kwargs)
        tensor.data = shared_numbers()[:count].view(tensor.shape)
        return tensor

    return initialize
