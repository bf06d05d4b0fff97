"""A perceptron that looks at the neighbours of each token: SMT."""

import torch.nn as nn
from torch import Tensor

from mmattn.ops import depthwise_convolution

from .linear import Linear


class ConvMLP(nn.Module):
    """Linear, 3x3 depthwise convolution with a skip, GELU, Linear.

    Source: SMT, https://arxiv.org/abs/2307.08579; its published code adds
    the hidden map to its convolution before the activation.

    Args:
        embed_dims (int): Channels of the input and of the output.
        hidden_dims (int): Channels between the two linear layers.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = Linear(embed_dims, hidden_dims)
        self.local_conv = nn.Conv2d(
            hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims
        )
        self.fc2 = Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        x = depthwise_convolution(
            self.fc1(x),
            self.local_conv.weight,
            self.local_conv.bias,
            with_skip=True,
            with_gelu=True,
        )
        return self.fc2(x)
