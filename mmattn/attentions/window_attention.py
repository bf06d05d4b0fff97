"""Attention inside the windows of a map, as in Swin Transformer."""

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.ops import (
    pad_map,
    padded_size,
    relative_position_bias,
    resize_relative_position_bias_table,
    window_attention,
)
from mmattn.registry import MODELS

from .checks import check_heads, check_map


@MODELS.register_module()
class WindowAttention(BaseModule):
    """Multi-head self-attention inside disjoint windows.

    Source: https://arxiv.org/abs/2103.14030, section 3.2. A map that the
    window does not divide is zero-padded at the bottom and right before the
    projection; padding is attended to, as in the published Swin detectors.

    Args:
        embed_dims (int): Channels of the input and of the output.
        num_heads (int): Attention heads. Must divide ``embed_dims``.
        window_size (int): Window side, in tokens. Defaults to 7.
        with_shift (bool): Shift the windows by half their side if the map is
            larger than a window on both sides. Defaults to False.
        qkv_bias (bool): Add a bias in the projection. Defaults to True.
        with_relative_position (bool): Add a learned bias per head and
            relative position to the scores. Defaults to True.
        impl (str): See ``mmattn.ops.list_implementations``. Defaults to
            ``'auto'``.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int = 7,
        with_shift: bool = False,
        qkv_bias: bool = True,
        with_relative_position: bool = True,
        impl: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_heads(self, embed_dims, num_heads)
        if window_size < 1:
            raise ValueError(
                f'WindowAttention expects window_size >= 1, got {window_size}'
            )
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.window_size = window_size
        self.with_shift = with_shift
        self.impl = impl
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        if with_relative_position:
            self.relative_position_bias_table = nn.Parameter(
                torch.zeros((2 * window_size - 1) ** 2, num_heads)
            )
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        else:
            self.relative_position_bias_table = None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        check_map(self, x, self.embed_dims)
        H, W = x.shape[1:3]
        x = pad_map(x, padded_size((H, W), (self.window_size,) * 2))
        out = window_attention(
            self.qkv(x),
            self.num_heads,
            self.window_size,
            shift=self.window_size // 2 if self.with_shift else 0,
            bias=self._relative_position_bias(),
            impl=self.impl,
        )
        return self.proj(out[:, :H, :W])

    def _relative_position_bias(self) -> Tensor | None:
        table = self.relative_position_bias_table
        if table is None:
            return None
        return relative_position_bias(table, self.window_size)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args
    ) -> None:
        """Resize the bias table of a checkpoint with another window."""
        key = f'{prefix}relative_position_bias_table'
        ours = self.relative_position_bias_table
        if ours is not None and key in state_dict:
            table = state_dict[key]
            if table.ndim == 2 and len(table) != len(ours):
                state_dict[key] = resize_relative_position_bias_table(
                    table, self.window_size
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return (
            f'num_heads={self.num_heads}, window_size={self.window_size}, '
            f'with_shift={self.with_shift}, impl={self.impl!r}'
        )
