"""Attention among all tokens of a map, plus a local convolution: SMT."""

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.ops import attention
from mmattn.registry import MODELS

from .checks import check_heads, check_map


@MODELS.register_module()
class MultiHeadSelfAttention(BaseModule):
    """Multi-head self-attention among all tokens of a map.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3.2. A 3x3
    depthwise convolution of the values on the map is added to the result.

    Args:
        embed_dims (int): Channels of the input and of the output.
        num_heads (int): Attention heads. Must divide ``embed_dims``.
        qkv_bias (bool): Add a bias in the projection. Defaults to True.
        impl (str): See ``mmattn.ops.list_implementations``. Defaults to
            ``'auto'``.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        qkv_bias: bool = True,
        impl: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_heads(self, embed_dims, num_heads)
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.impl = impl
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.local_conv = nn.Conv2d(
            embed_dims, embed_dims, 3, padding=1, groups=embed_dims
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        check_map(self, x, self.embed_dims)
        B, H, W, C = x.shape
        qkv = self.qkv(x)
        heads = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (B, h, N, d)
        out = attention(q, k, v, impl=self.impl)
        out = out.transpose(1, 2).reshape(B, H, W, C)
        local = self.local_conv(qkv[..., 2 * C :].permute(0, 3, 1, 2))
        return self.proj(out + local.permute(0, 2, 3, 1))

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}, impl={self.impl!r}'
