"""Models that are built to be run once, not to be trained."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Random numbers that are drawn once and used again and again.
_BANK = 1 << 20


class ReusedNumbers(TorchFunctionMode):
    """Fill weights from a small bank of random numbers.

    Drawing tens of millions of them takes longer than running the model on a
    small image.
    """

    def __init__(self) -> None:
        super().__init__()
        self._uniform = torch.rand(_BANK)
        self._normal = torch.randn(_BANK)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        """Replace what draws numbers in place, pass on everything else."""
        kwargs = kwargs or {}
        if func is Tensor.uniform_:
            return self._fill_uniform(*args, **kwargs)
        if func is Tensor.normal_:
            return self._fill_normal(*args, **kwargs)
        return func(*args, **kwargs)

    def _fill_uniform(
        self, x: Tensor, low: float = 0.0, high: float = 1.0, **_: Any
    ) -> Tensor:
        if 'from' in _ or 'a' in _:
            low, high = _.get('from', low), _.get('to', high)
        return _fill(x, self._uniform * (high - low) + low)

    def _fill_normal(
        self, x: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any
    ) -> Tensor:
        return _fill(x, self._normal * std + mean)


def _fill(x: Tensor, bank: Tensor) -> Tensor:
    if not x.is_contiguous() or x.device.type == 'meta':
        return x.copy_(torch.rand_like(x))
    flat = x.view(-1)
    for start in range(0, len(flat), _BANK):
        part = flat[start : start + _BANK]
        part.copy_(bank[: len(part)])
    return x
