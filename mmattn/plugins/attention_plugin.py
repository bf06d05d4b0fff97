"""Any attention layer inside a convolutional stage."""

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.attentions.build import build_attention
from mmattn.registry import MODELS


@MODELS.register_module()
class AttentionPlugin(BaseModule):
    """A residual attention layer: ``x + scale * attention(norm(x))``.

    The scale of each channel is learned. It is a plugin for mmdet's and
    mmseg's ResNet::

        plugins=[dict(
            cfg=dict(
                type='mmattn.AttentionPlugin',
                attention=dict(type='mmattn.WindowAttention', num_heads=8)),
            stages=(False, True, True, True),
            position='after_conv3')]

    Args:
        in_channels (int): Channels of the map; the ResNet gives them.
        attention (dict): Config of a registered attention without
            ``embed_dims``.
        init_scale (float): Initial scale. With 0 the output of a pretrained
            stage is unchanged at first. Defaults to 0.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    _abbr_ = 'attention'

    def __init__(
        self,
        in_channels: int,
        attention: dict,
        init_scale: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.norm = nn.LayerNorm(in_channels)
        self.attn = build_attention(
            type(self).__name__, attention, embed_dims=in_channels
        )
        self.scale = nn.Parameter(torch.full((in_channels,), init_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        out = self.attn(self.norm(x.permute(0, 2, 3, 1)))  # (B, H, W, C)
        return x + (self.scale * out).permute(0, 3, 1, 2)
