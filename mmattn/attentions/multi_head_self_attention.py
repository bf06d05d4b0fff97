"""Attention to the whole map, beside a local convolution: SMT."""

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.layers import Linear
from mmattn.ops import (
    attention,
    cross_shaped_attention,
    depthwise_convolution,
    sizes_vary,
    where_it_exists,
)
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
        qkv_bias (bool): Add a bias to queries, keys and values. Defaults to
            True.
        impl (str): Implementation of ``cross_shaped_attention``, here with
            the whole map as its stripe, see
            ``mmattn.ops.list_implementations``. Defaults to ``'auto'``.
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
        self.num_heads = num_heads
        self.impl = impl
        self.qkv = Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = Linear(embed_dims, embed_dims)
        self.local_conv = nn.Conv2d(
            embed_dims, embed_dims, 3, padding=1, groups=embed_dims
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        check_map(self, x, self.qkv.in_features)
        qkv = self.qkv(x)
        kernels = self.local_conv.weight, self.local_conv.bias
        if sizes_vary(qkv):
            return self.proj(self._in_parts(qkv, *kernels))
        # With one stripe, which is the map, this is the same in one call.
        out = cross_shaped_attention(
            qkv, self.num_heads, None, *kernels, impl=self.impl
        )
        return self.proj(out)

    def _in_parts(self, qkv: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """What a compiler follows for maps of all sizes."""
        B, H, W, C = *qkv.shape[:3], qkv.shape[3] // 3
        h = self.num_heads
        q, k, v = qkv.view(B, H * W, 3, h, C // h).permute(2, 0, 3, 1, 4)
        out = attention(
            q, k, v, impl=where_it_exists('attention', self.impl)
        )  # (B, h, N, d), N = H * W
        local = depthwise_convolution(
            qkv[..., 2 * C :],
            weight,
            bias,
            impl=where_it_exists('depthwise_convolution', self.impl),
        )
        return out.transpose(1, 2).reshape(B, H, W, C) + local

    def extra_repr(self) -> str:
        """Show in a printed model what its sub-modules do not."""
        return f'num_heads={self.num_heads}, impl={self.impl!r}'
