"""Modulation of the values by convolutions at several scales: SMT."""

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.layers import MixedConvolution
from mmattn.registry import MODELS

from .checks import check_heads, check_map

_SMALLEST_KERNEL = 3
# Channels between the two 1x1 convolutions, as a multiple of the input's.
_EXPANSION = 2


@MODELS.register_module()
class ScaleAwareModulation(BaseModule):
    """Multiply the values by a modulator from convolutions of several sizes.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3.1. A projection
    is split into heads; head i has a depthwise convolution of side
    ``3 + 2 * i``. Groups with one channel of each head are widened by a
    grouped 1x1 convolution; batch normalization, GELU and a 1x1 convolution
    give the modulator. Cost and memory are linear in the tokens.

    Args:
        embed_dims (int): Channels of the input and of the output.
        num_heads (int): Number of kernel sizes. Must divide ``embed_dims``.
            Defaults to 4.
        qkv_bias (bool): Add a bias to both projections of the input. Defaults
            to True.
        impl (str): See ``mmattn.ops.list_implementations``. Defaults to
            ``'auto'``.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int = 4,
        qkv_bias: bool = True,
        impl: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_heads(self, embed_dims, num_heads)
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        c = embed_dims // num_heads
        hidden = _EXPANSION * embed_dims
        sides = [_SMALLEST_KERNEL + 2 * i for i in range(num_heads)]
        self.v = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.s = nn.Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.local_convs = MixedConvolution(embed_dims, sides, impl)
        self.expand = nn.Conv2d(embed_dims, hidden, 1, groups=c)
        self.norm = nn.BatchNorm2d(hidden)
        self.act = nn.GELU()
        self.mix = nn.Conv2d(hidden, embed_dims, 1)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        check_map(self, x, self.embed_dims)
        scales = self.local_convs(self.s(x)).permute(0, 3, 1, 2)
        modulator = self.mix(self.act(self.norm(self.expand(scales))))
        return self.proj(modulator.permute(0, 2, 3, 1) * self.v(x))

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}'
