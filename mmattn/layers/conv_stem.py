"""The stem of SMT: two strided convolutions."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmattn.ops import padded_size, sizes_vary, strided_convolution

from .checks import check_images
from .conv2d import Conv2d
from .folding import fold_batch_norm, has_fixed_statistics
from .layer_norm import LayerNorm

_STRIDE = 4


class ConvStem(nn.Module):
    """Embed an image at stride 4 by two convolutions and a norm.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3. A convolution at
    stride 2 with batch normalisation and ReLU, a 2x2 convolution at stride 2,
    a LayerNorm.

    Upstream differences: the published code drops the last row and column
    where two strides leave one over; here an image whose sides 4 does not
    divide is padded with zeros at the bottom and at the right.

    Args:
        in_channels (int): Channels of the image.
        embed_dims (int): Channels of the tokens.
        kernel_size (int): Side of the first convolution, odd. Defaults to 3.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, kernel_size: int = 3
    ) -> None:
        super().__init__()
        self.conv = Conv2d(
            in_channels,
            embed_dims,
            kernel_size,
            stride=2,
            padding=kernel_size // 2,
            bias=False,
        )
        self.batch_norm = nn.BatchNorm2d(embed_dims)
        self.proj = Conv2d(embed_dims, embed_dims, 2, stride=2)
        self.norm = LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, H / 4, W / 4, C)``.

        Raises:
            ValueError: If the image has other channels or is smaller than
                the stride.
        """
        check_images(self, x, self.conv.in_channels, _STRIDE)
        H, W = x.shape[2:]
        if sizes_vary(x) or H % _STRIDE or W % _STRIDE:
            bottom, right = padded_size((H, W), (_STRIDE, _STRIDE))
            x = F.pad(x, (0, right - W, 0, bottom - H))
        # Channels last in memory, said so that transforms (vmap) follow.
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        x = self._embed(x)
        return self.norm(self.proj(x.relu_()).permute(0, 2, 3, 1))

    def _embed(self, x: Tensor) -> Tensor:
        """The first convolution and its norm."""
        conv, norm = self.conv, self.batch_norm
        if not has_fixed_statistics(norm):
            return norm(conv(x))
        # With fixed statistics the norm is part of the kernels.
        weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
        return strided_convolution(x, weight, bias, conv.stride, conv.padding)
