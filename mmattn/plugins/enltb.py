"""The efficient non-local transformer block, for maps of a CNN."""

from torch import Tensor

from mmattn.attentions import EfficientNonLocalAttention
from mmattn.layers import AttentionBlock
from mmattn.registry import MODELS


@MODELS.register_module()
class ENLTB(AttentionBlock):
    """A transformer block whose attention is global and linear in the tokens.

    Source: https://arxiv.org/abs/2406.14052, section 2.3: norm, attention by
    random features, residual, norm, MLP, residual. It is a plugin for mmdet's
    and mmseg's ResNet.

    Upstream differences: the published block takes maps of one size and drops
    activations in training; this one takes any size and drops branches only.

    Args:
        in_channels (int): Channels of the map; a ResNet gives them.
        num_heads (int): Attention heads. Must divide ``in_channels``.
            Defaults to 1, as published.
        num_features (int, optional): Random features of a head. Defaults to
            None, the channels of a head.
        amplification (float): Length of queries and keys. Defaults to 1.
        mlp_ratio (float): Hidden channels of the MLP, as a multiple of
            ``in_channels``. Defaults to 4.
        drop_path_rate (float): Probability of dropping the branch of an image
            in training. Defaults to 0.
        seed (int): Seed of the random features. Defaults to 0.
    """

    _abbr_ = 'enltb'

    def __init__(
        self,
        in_channels: int,
        num_heads: int = 1,
        num_features: int | None = None,
        amplification: float = 1.0,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        seed: int = 0,
    ) -> None:
        attention = EfficientNonLocalAttention(
            in_channels,
            num_heads,
            num_features=num_features,
            amplification=amplification,
            seed=seed,
        )
        super().__init__(attention, in_channels, mlp_ratio, drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
