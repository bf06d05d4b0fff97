"""The MLP of a transformer block."""

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
