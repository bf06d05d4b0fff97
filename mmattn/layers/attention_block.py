"""The residual block that every pyramid is built of."""

import torch.nn as nn
from mmcv.cnn.bricks.scale import LayerScale
from torch import Tensor

from .drop_path import DropPath
from .mlp import MLP


class AttentionBlock(nn.Module):
    """Attention, then an MLP, each normalized before and added after.

    ``x + drop_path(attn(norm(x)))``, then ``x + drop_path(mlp(norm(x)))``.
    With layer scale (https://arxiv.org/abs/2103.17239, section 2), each
    branch is multiplied by a learned factor per channel.

    Args:
        attention (nn.Module): Takes and returns maps ``(B, H, W, C)``.
        embed_dims (int): Channels C.
        mlp_ratio (float): Hidden channels of the MLP, as a multiple of
            ``embed_dims``. Defaults to 4.
        drop_path_rate (float): Probability of dropping the branch of an image
            in training. Defaults to 0.
        mlp_type (type): Class of the MLP; takes its channels and its
            hidden channels. Defaults to MLP.
        norm_eps (float): Added to the variance in both norms. Defaults to
            1e-5.
        layer_scale (float, optional): First value of the factors of layer
            scale. Defaults to None, no layer scale.
    """

    def __init__(
        self,
        attention: nn.Module,
        embed_dims: int,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        mlp_type: type[nn.Module] = MLP,
        norm_eps: float = 1e-5,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.attn = attention
        self.gamma1 = self._build_layer_scale(embed_dims, layer_scale)
        self.norm2 = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.mlp = mlp_type(embed_dims, int(mlp_ratio * embed_dims))
        self.gamma2 = self._build_layer_scale(embed_dims, layer_scale)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        x = x + self.drop_path(self.gamma1(self.attn(self.norm1(x))))
        return x + self.drop_path(self.gamma2(self.mlp(self.norm2(x))))

    @staticmethod
    def _build_layer_scale(embed_dims: int, value: float | None) -> nn.Module:
        if value is None:
            return nn.Identity()
        return LayerScale(embed_dims, scale=value)
