"""The MLPs of transformer blocks."""

import torch.nn as nn
from torch import Tensor


class MLP(nn.Module):
    """Linear, GELU, Linear, applied to the channels of each token.

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
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*, C)`` to ``(*, C)``."""
        return self.fc2(self.act(self.fc1(x)))


class ConvMLP(nn.Module):
    """Linear, 3x3 depthwise convolution with a residual, GELU, Linear.

    Source: SMT, https://arxiv.org/abs/2307.08579; its published code adds
    the hidden map to its convolution before the activation.

    Args:
        embed_dims (int): Channels of the input and of the output.
        hidden_dims (int): Channels between the two linear layers.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.local_conv = nn.Conv2d(
            hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims
        )
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        x = self.fc1(x)
        local = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(self.act(x + local))
