"""Attention in the stripes of a map with locally-enhanced positions."""

import torch
import torch.nn as nn
from torch import Tensor

from mmattn.ops import cross_shaped_attention


class LePEAttention(nn.Module):
    """Attention inside cross-shaped windows, plus LePE.

    Source: CSWin, https://arxiv.org/abs/2107.00652, section 3.3: a 3x3
    depthwise convolution of the values inside each stripe is added to the
    result of the attention. The module owns the kernels of the convolution,
    so that one operation can compute both.

    Args:
        embed_dims (int): Channels of queries, keys and values each.
        num_heads (int): Attention heads of both orientations.
        stripe_width (int, optional): Columns or rows of a stripe, in tokens.
            None lets all heads attend to the whole map.
        impl (str): See ``mmattn.ops.list_implementations``. Defaults to
            ``'auto'``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        stripe_width: int | None,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.stripe_width = stripe_width
        self.impl = impl
        # The shapes and initial values of a depthwise nn.Conv2d.
        self.weight = nn.Parameter(torch.empty(embed_dims, 1, 3, 3))
        self.bias = nn.Parameter(torch.empty(embed_dims))
        nn.init.uniform_(self.weight, -1 / 3, 1 / 3)
        nn.init.uniform_(self.bias, -1 / 3, 1 / 3)

    def forward(self, qkv: Tensor) -> Tensor:
        """Map ``(B, H, W, 3 * C)`` to ``(B, H, W, C)``."""
        return cross_shaped_attention(
            qkv,
            self.num_heads,
            self.stripe_width,
            self.weight,
            self.bias,
            impl=self.impl,
        )

    def extra_repr(self) -> str:
        return (
            f'num_heads={self.num_heads}, '
            f'stripe_width={self.stripe_width}, impl={self.impl!r}'
        )
