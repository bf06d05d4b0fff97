"""Models that are built to be run once, not to be trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

# Numbers that are drawn once: no weight of a usual model has more.
_BANK = 1 << 24
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
# Weights below this are drawn as ever, and where they are drawn as ever.
_SMALL = 1 << 14


@cache
def random_bank() -> Tensor:
    """Numbers that large weights are views of, ``(2 ** 24, )``.

    Forked processes share it: ask for it before.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_BANK, generator=generator) * _SCALE


@contextmanager
def shared_weights() -> Iterator[None]:
    """Let large weights be views of one bank of random numbers.

    Drawing and writing tens of millions of numbers takes longer than running
    the model on a small image. Such a model must not be trained.
    """
    kept = {name: getattr(nn.init, name) for name in _RANDOM}
    for name, function in kept.items():
        setattr(nn.init, name, _sharing(function))
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)


def _sharing(function: Callable) -> Callable:
    def initialize(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        count = tensor.numel()
        large = _SMALL <= count <= _BANK and tensor.is_leaf
        if not large or tensor.device.type != 'cpu':
            return function(tensor, *args, **kwargs)
        tensor.data = random_bank()[:count].view(tensor.shape)
        return tensor

    return initialize
