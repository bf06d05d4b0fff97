"""The residual block that every pyramid is built of."""
import torch.nn as nn
from mmcv.cnn.bricks import DropPath
from torch import Tensor

from .mlp import MLP


class AttentionBlock(nn.Module):
    """Attention, then a perceptron, each normalised before and added after.

    ``x + drop_path(attn(norm(x)))``, then ``x + drop_path(mlp(norm(x)))``.

    Args:
        attention (nn.Module): Takes and returns maps ``(B, H, W, C)``.
        embed_dims (int): Channels C.
        mlp_ratio (float): Hidden channels of the perceptron, as a multiple of
            ``embed_dims``. Defaults to 4.
        drop_path_rate (float): Probability of leaving out a branch, for each
            image by itself, in training. Defaults to 0.
    """

    def __init__(self,
                 attention: nn.Module,
                 embed_dims: int,
                 mlp_ratio: float = 4.,
                 drop_path_rate: float = 0.) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims)
        self.attn = attention
        self.norm2 = nn.LayerNorm(embed_dims)
        self.mlp = MLP(embed_dims, int(mlp_ratio * embed_dims))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
