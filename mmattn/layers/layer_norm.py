"""A layer normalisation that takes the fastest implementation at hand."""

import torch.nn as nn
from torch import Tensor

from mmattn.ops import layer_norm


class LayerNorm(nn.LayerNorm):
    """PyTorch's, of the last axis, by :func:`mmattn.ops.layer_norm`.

    Args:
        channels (int): Channels C.
        eps (float): Added to the variance. Defaults to 1e-5.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*, C)`` to ``(*, C)``."""
        return layer_norm(x, self.weight, self.bias, self.eps)
