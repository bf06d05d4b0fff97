"""The decoder of Perspective+ U-Net over the maps of its encoder."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor


def _two_convs(
    in_channels: int, out_channels: int, norm_cfg: dict
) -> nn.Sequential:
    """Two 3x3 convolutions, each with a norm and a ReLU."""
    options = dict(padding=1, norm_cfg=norm_cfg, inplace=False)
    return nn.Sequential(
        ConvModule(in_channels, out_channels, 3, **options),
        ConvModule(out_channels, out_channels, 3, **options),
    )


class PerspectiveHead(BaseDecodeHead):
    """The decoder of a U-Net: from the deepest map up, joined level by level.

    Source: Perspective+ U-Net, https://arxiv.org/abs/2406.14052, and its code,
    https://github.com/tljxyys/Perspective-Unet. Two 3x3 convolutions map the
    deepest map to the channels of the next one. On each level the map from
    below is resized (bilinear) to the size of the encoder's map, both are
    concatenated, and two convolutions follow. At last the map is doubled in
    size once more, before two convolutions and a 3x3 convolution to logits:
    from maps at strides 2 to 16, the logits have full resolution. The
    encoder's map at stride 1 is not used.

    Upstream differences: the published code needs sides that are multiples of
    16.

    Args:
        in_channels (Sequence[int]): Channels of the encoder's maps, each at
            half the resolution of the one before.
        in_index (Sequence[int]): Which maps of the encoder they are. Defaults
            to (1, 2, 3, 4), all of PerspectiveEncoder but the first.
        channels (int): Channels of the finest map that is classified.
        num_classes (int): Classes.
        norm_cfg (dict): Config of the norms. Defaults to BN.
        align_corners (bool): Align corners when resizing, that of the logits
            to the labels included. Defaults to True, as published weights
            need.
        **kwargs: Other arguments of mmseg's ``BaseDecodeHead``:
            ``dropout_ratio``, ``loss_decode``, ...

    Raises:
        ValueError: If ``in_channels`` and ``in_index`` are of different
            lengths or of less than two maps.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_index: Sequence[int] = (1, 2, 3, 4),
        norm_cfg: dict | None = None,
        align_corners: bool = True,
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
            align_corners=align_corners,
            **kwargs,
        )
        *skips, deepest = in_channels
        # Channels above each join: those of the next finer map.
        above = [self.channels, *skips[:-1]]
        self.deepest = _two_convs(deepest, skips[-1], norm_cfg)
        self.joins = nn.ModuleList(
            _two_convs(2 * skip, out, norm_cfg)
            for skip, out in zip(reversed(skips), reversed(above))
        )
        self.finest = _two_convs(self.channels, self.channels, norm_cfg)
        self.conv_seg = nn.Conv2d(
            self.channels, self.out_channels, 3, padding=1
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map the encoder's maps to logits at twice the finest one's sides.

        Args:
            inputs (Sequence[Tensor]): Each ``(B, C_i, H_i, W_i)``.

        Returns:
            Tensor: ``(B, num_classes, 2 H_0, 2 W_0)``, H_0 and W_0 of the
            first map of ``in_index``.
        """
        *skips, x = self._transform_inputs(inputs)
        x = self.deepest(x)
        for join, skip in zip(self.joins, reversed(skips)):
            x = self._resize(x, *skip.shape[2:])
            x = join(torch.cat((x, skip), dim=1))
        height, width = x.shape[2:]
        x = self._resize(x, 2 * height, 2 * width)
        return self.cls_seg(self.finest(x))

    def _resize(self, x: Tensor, height: int, width: int) -> Tensor:
        # mmseg's resize warns about align_corners at every even size.
        return F.interpolate(
            x,
            (height, width),
            mode='bilinear',
            align_corners=self.align_corners,
        )
