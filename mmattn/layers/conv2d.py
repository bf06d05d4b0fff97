"""A convolution that a compiler takes as it is where sizes vary."""

import torch.nn as nn
from torch import Tensor

from mmattn.ops import strided_convolution


class Conv2d(nn.Conv2d):
    """PyTorch's, by :func:`mmattn.ops.strided_convolution`.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        kernel_size (int): Side of the kernels.
        stride (int): Rows and columns from one place to the next.
        padding (int): Rows and columns of zeros around the map. Defaults
            to 0.
        bias (bool): Add a bias. Defaults to True.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H', W')``."""
        return strided_convolution(
            x, self.weight, self.bias, self.stride, self.padding
        )
