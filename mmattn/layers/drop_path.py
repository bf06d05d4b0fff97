"""Leave out branches of residual blocks at random."""

import torch
import torch.nn as nn
from torch import Tensor


class DropPath(nn.Module):
    """Set a branch to zero for some images, in training.

    Source: https://arxiv.org/abs/1603.09382. The remaining branches are
    scaled up to keep the mean. It equals mmcv's layer for the same seed, but
    reads and writes the branch once, not twice.

    Args:
        drop_prob (float): Probability of dropping the branch of an image,
            below 1. Defaults to 0.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise ValueError(
                'DropPath expects drop_prob from 0 to below 1, got '
                f'{drop_prob}'
            )
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, *)`` to the same shape."""
        if self.drop_prob == 0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        shape = (len(x),) + (1,) * (x.ndim - 1)
        kept = torch.rand(shape, dtype=x.dtype, device=x.device) + keep
        return x * kept.floor_().div_(keep)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob}'
