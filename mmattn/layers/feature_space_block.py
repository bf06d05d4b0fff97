"""The residual block of BOAT: in image space, then in feature space."""

import torch.nn as nn
from torch import Tensor

from .attention_block import AttentionBlock
from .drop_path import DropPath


class FeatureSpaceBlock(AttentionBlock):
    """Attention in image space, in feature space, then an MLP.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.3. Each is
    normalized before and added after.

    Args:
        attention (nn.Module): In image space.
        feature_attention (nn.Module): In feature space.
        embed_dims (int): Channels C.
        mlp_ratio (float): Hidden channels of the MLP, as a multiple of
            ``embed_dims``. Defaults to 4.
        drop_path_rate (float): Drop-path rate of the attention in image space
            and of the MLP. Defaults to 0.
        feature_drop_path_rate (float): Drop-path rate of the attention in
            feature space: 0 in the published BOAT-Swin, that of the other
            branches in BOAT-CSWin. Defaults to 0.
    """

    def __init__(
        self,
        attention: nn.Module,
        feature_attention: nn.Module,
        embed_dims: int,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        feature_drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(attention, embed_dims, mlp_ratio, drop_path_rate)
        self.feature_norm = nn.LayerNorm(embed_dims)
        self.feature_attn = feature_attention
        self.feature_drop_path = DropPath(feature_drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        x = x + self.drop_path(self.gamma1(self.attn(self.norm1(x))))
        in_feature_space = self.feature_attn(self.feature_norm(x))
        x = x + self.feature_drop_path(in_feature_space)
        return x + self.drop_path(self.gamma2(self.mlp(self.norm2(x))))
