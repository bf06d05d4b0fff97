"""The two-layer perceptron of a transformer block."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmattn.ops import perceptron

from .linear import Linear
from .plain import is_plain


class MLP(nn.Module):
    """Linear, GELU, Linear, on the channels of each token.

    Args:
        embed_dims (int): Channels of the input and of the output.
        hidden_dims (int): Channels between the two linear layers.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        if hidden_dims < 1:
            raise ValueError(
                f'MLP expects hidden_dims >= 1, got {hidden_dims}; check '
                'mlp_ratio'
            )
        self.fc1 = Linear(embed_dims, hidden_dims)
        self.fc2 = Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*, C)`` to ``(*, C)``."""
        fc1, fc2 = self.fc1, self.fc2
        if is_plain(fc1, Linear) and is_plain(fc2, Linear):
            return perceptron(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        # What has taken its place, a low-rank adapter say, is linear alone.
        return fc2(F.gelu(fc1(x)))
