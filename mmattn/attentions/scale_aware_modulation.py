"""Modulation of the values by convolutions at several scales: SMT."""

import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.layers import (
    Linear,
    fold_batch_norm,
    has_fixed_statistics,
)
from mmattn.ops import (
    asks_for_gradient,
    grouped_linear,
    linear,
    mixed_convolution,
    mixed_expansion,
    tell_of_parts,
    where_it_exists,
)
from mmattn.registry import MODELS

from .checks import check_heads, check_map

_SMALLEST_KERNEL = 3
# Channels between the two 1x1 convolutions, as a multiple of the input's.
_EXPANSION = 2


@MODELS.register_module()
class ScaleAwareModulation(BaseModule):
    """Multiply the values by what convolutions of several sizes see.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3.1. Head i of the
    ``num_heads`` parts of a projection passes a depthwise convolution of side
    ``3 + 2 * i``. A grouped 1x1 convolution widens each group of channels
    that holds every head once, then follow batch normalisation, GELU and a
    1x1 convolution that mixes the groups. The result modulates the values by
    elementwise product. Cost and memory grow linearly with the tokens.

    In training, batch normalisation takes its statistics over all images of
    the batch, and needs more than one value of each channel.

    Args:
        embed_dims (int): Channels of the input and of the output.
        num_heads (int): Parts of the channels, each with kernels of its own
            size. Must divide ``embed_dims``. Defaults to 4.
        qkv_bias (bool): Add a bias to both projections of the input. Defaults
            to True.
        impl (str): Implementation of the convolutions, see
            ``mmattn.ops.list_implementations``. Defaults to ``'auto'``.
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
        self.num_heads = num_heads
        self.impl = impl
        c = embed_dims // num_heads
        hidden = _EXPANSION * embed_dims
        sides = [_SMALLEST_KERNEL + 2 * i for i in range(num_heads)]
        self.v = Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.s = Linear(embed_dims, embed_dims, bias=qkv_bias)
        self.local_convs = nn.ModuleList(
            nn.Conv2d(c, c, side, padding=side // 2, groups=c)
            for side in sides
        )
        self.expand = nn.Conv2d(embed_dims, hidden, 1, groups=c)
        self.norm = nn.BatchNorm2d(hidden)
        self.mix = nn.Conv2d(hidden, embed_dims, 1)
        self.proj = Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        check_map(self, x, self.v.in_features)
        hidden = self._see(self.s(x))  # (B, H, W, 2 * C)
        modulator = linear(hidden, self.mix.weight.flatten(1), self.mix.bias)
        return self.proj(modulator * self.v(x))

    def _see(self, x: Tensor) -> Tensor:
        """Convolve at all scales, widen the groups, normalise, activate."""
        kernels = [conv.weight for conv in self.local_convs]
        biases = [conv.bias for conv in self.local_convs]
        weight, bias = self.expand.weight.flatten(1), self.expand.bias
        norm, groups = self.norm, self.expand.groups
        is_fixed = has_fixed_statistics(norm)
        if is_fixed:
            # With fixed statistics the norm is part of the matrices.
            weight, bias = fold_batch_norm(weight, bias, norm)
            if self._is_in_one(x, *kernels, *biases, weight, bias):
                return mixed_expansion(
                    x, kernels, biases, weight, bias, self.impl
                )
        if self.impl == 'auto':
            tell_of_parts()
        scales = mixed_convolution(x, kernels, biases, self.impl)
        hidden = grouped_linear(scales, weight, bias, groups, is_fixed)
        if is_fixed:
            return hidden
        hidden = norm(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return F.gelu(hidden)

    def _is_in_one(self, *tensors: Tensor) -> bool:
        """Whether one operation has all of it by the name ``impl``.

        Kernels that do it in one go are for inference.
        """
        return not asks_for_gradient(*tensors) and all(
            where_it_exists(operation, self.impl) == self.impl
            for operation in ('mixed_convolution', 'mixed_expansion')
        )

    def extra_repr(self) -> str:
        """Show in a printed model what its sub-modules do not."""
        return f'num_heads={self.num_heads}, impl={self.impl!r}'
