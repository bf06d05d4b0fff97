"""The decoder of a U-Net over the maps of PerspectiveEncoder."""

from collections.abc import Sequence

import torch
import torch.nn as nn
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor

from mmattn.registry import MODELS


class UpBlock(nn.Module):
    """Double a map's sides and join it with the encoder's map of that size.

    Args:
        in_channels (int): Channels of the map from below.
        skip_channels (int): Channels of the encoder's map.
        out_channels (int): Channels of the output.
        norm_cfg (dict): Config of the norms.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, skip_channels, 2, stride=2)
        self.conv1 = ConvModule(
            2 * skip_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg
        )
        self.conv2 = ConvModule(
            out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(B, in, H, W)`` and ``(B, skip, H', W')`` to ``(B, out, ...)``."""
        x = self.up(x)
        if x.shape[2:] != skip.shape[2:]:  # an odd side was halved below
            x = resize(x, skip.shape[2:], mode='bilinear', align_corners=False)
        return self.conv2(self.conv1(torch.cat((skip, x), dim=1)))


@MODELS.register_module()
class PerspectiveHead(BaseDecodeHead):
    """The decoder of a U-Net: from the deepest map up, joined level by level.

    Source: https://arxiv.org/abs/2406.14052, figure 1. On each level a 2x2
    transposed convolution doubles the sides, the encoder's map is put beside
    it, and two 3x3 convolutions follow.

    Upstream differences: the weights of the published decoder do not fit.

    Args:
        in_channels (Sequence[int]): Channels of the encoder's maps, each at
            half the resolution of the one before.
        in_index (Sequence[int]): Which maps of the encoder they are. Defaults
            to (0, 1, 2, 3, 4).
        channels (int): Channels of the finest map that is classified.
        num_classes (int): Classes.
        norm_cfg (dict): Config of the norms. Defaults to BN.
        **kwargs: Other arguments of mmseg's ``BaseDecodeHead``:
            ``dropout_ratio``, ``loss_decode``, ...
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_index: Sequence[int] = (0, 1, 2, 3, 4),
        norm_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        if len(in_channels) != len(in_index) or len(in_channels) < 2:
            raise ValueError(
                'PerspectiveHead expects in_channels and in_index of two or '
                f'more maps, got {in_channels=}, {in_index=}'
            )
        norm_cfg = norm_cfg or dict(type='BN')
        super().__init__(
            in_channels=in_channels,
            in_index=in_index,
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            **kwargs,
        )
        widths = [self.channels, *in_channels[1:]]
        self.ups = nn.ModuleList(
            UpBlock(widths[i + 1], in_channels[i], widths[i], norm_cfg)
            for i in reversed(range(len(in_channels) - 1))
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map the encoder's maps to logits at the finest one's resolution.

        Args:
            inputs (Sequence[Tensor]): Each ``(B, C_i, H_i, W_i)``.

        Returns:
            Tensor: ``(B, num_classes, H_0, W_0)``.
        """
        *skips, x = self._transform_inputs(inputs)
        for up, skip in zip(self.ups, reversed(skips)):
            x = up(x, skip)
        return self.cls_seg(x)
