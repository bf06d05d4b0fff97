"""A perceptron that looks at the neighbours of each token: SMT."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmattn.ops import perceptron

from .linear import Linear
from .plain import is_plain


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
        fc1, conv, fc2 = self.fc1, self.local_conv, self.fc2
        plain = is_plain(fc1, Linear) and is_plain(fc2, Linear)
        if plain and is_plain(conv, nn.Conv2d):
            return perceptron(
                x,
                fc1.weight,
                fc1.bias,
                fc2.weight,
                fc2.bias,
                conv.weight,
                conv.bias,
            )
        # What has taken their places, or what looks at them, wants a call.
        x = fc1(x)
        local = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return fc2(F.gelu(x + local))
