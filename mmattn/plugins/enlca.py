"""Efficient non-local contrastive attention, for maps of a CNN."""

from mmengine.model import BaseModule
from torch import Tensor

from mmattn.attentions import EfficientNonLocalAttention
from mmattn.ops import contrastive_loss
from mmattn.registry import MODELS

# As published: products of queries and keys are in [-6, 6].
_AMPLIFICATION = 6**0.5


@MODELS.register_module()
class ENLCA(BaseModule):
    """Add a global attention, linear in the tokens, to the map.

    Source: https://arxiv.org/abs/2201.03794, section 3:
    ``x + res_scale * attention(x)``, with fewer channels in queries and keys
    than in values. It is a plugin for mmdet's and mmseg's ResNet;
    :meth:`contrastive_loss` can be added to the loss of a training.

    Args:
        in_channels (int): Channels of the map; a ResNet gives them.
        reduction (int): Channels of the map per channel of queries and keys.
            Must divide ``in_channels``. Defaults to 4.
        num_heads (int): Attention heads. Must divide the channels of queries
            and keys. Defaults to 1, as published.
        num_features (int): Random features of a head. Defaults to 128.
        amplification (float): Length of queries and keys. Defaults to
            ``6 ** 0.5``.
        res_scale (float): Factor of the attention. Defaults to 0.1.
        seed (int): Seed of the random features. Defaults to 0.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    _abbr_ = 'enlca'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 4,
        num_heads: int = 1,
        num_features: int = 128,
        amplification: float = _AMPLIFICATION,
        res_scale: float = 0.1,
        seed: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if reduction < 1 or in_channels % reduction != 0:
            raise ValueError(
                'ENLCA expects reduction to divide in_channels, got '
                f'{in_channels=}, {reduction=}'
            )
        self.res_scale = res_scale
        self.attn = EfficientNonLocalAttention(
            in_channels,
            num_heads,
            key_dims=in_channels // reduction,
            num_features=num_features,
            amplification=amplification,
            seed=seed,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        out = self.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.res_scale * out

    def contrastive_loss(self, x: Tensor) -> Tensor:
        """``mmattn.ops.contrastive_loss``, averaged over the heads.

        Args:
            x (Tensor): Input of :meth:`forward`, of at least 65 tokens.

        Returns:
            Tensor: A scalar; 0 in evaluation mode, as published.
        """
        if not self.training:
            return x.new_zeros(())
        q, k = self.attn.embed(x.permute(0, 2, 3, 1))  # each (B, h, N, d)
        return contrastive_loss(q.flatten(0, 1), k.flatten(0, 1))
