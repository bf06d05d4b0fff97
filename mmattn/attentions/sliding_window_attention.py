"""Attention inside the overlapping windows that slide over a map."""

import torch
from torch import Tensor

from mmattn.ops import sliding_window_attention
from mmattn.registry import MODELS

from .checks import check_map
from .window_attention import WindowAttention


@MODELS.register_module()
class SlidingWindowAttention(WindowAttention):
    """Multi-head self-attention inside windows that overlap.

    A token's result is the mean over the windows that contain it; windows are
    clipped at the end of the map. Weights of ``WindowAttention`` load; the
    state dict also contains the stride.

    Args:
        embed_dims (int): Channels of the input and of the output.
        num_heads (int): Attention heads. Must divide ``embed_dims``.
        window_size (int): Window side, in tokens. Defaults to 7.
        stride (int): Tokens from one window to the next, from 1 to
            ``window_size`` (disjoint windows). The cost is proportional to
            ``(window_size / stride) ** 2``. Defaults to 4.
        qkv_bias, with_relative_position, impl, init_cfg: See
            :class:`WindowAttention`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int = 7,
        stride: int = 4,
        qkv_bias: bool = True,
        with_relative_position: bool = True,
        impl: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            embed_dims,
            num_heads,
            window_size,
            qkv_bias=qkv_bias,
            with_relative_position=with_relative_position,
            impl=impl,
            init_cfg=init_cfg,
        )
        if not 1 <= stride <= window_size:
            raise ValueError(
                'SlidingWindowAttention expects 1 <= stride <= window_size, '
                f'got {stride=}, {window_size=}'
            )
        self.stride = stride
        # Distinguishes checkpoints of this layer from those of
        # WindowAttention, which have the same names and shapes.
        self.register_buffer('window_stride', torch.tensor(stride))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        check_map(self, x, self.embed_dims)
        out = sliding_window_attention(
            self.qkv(x),
            self.num_heads,
            self.window_size,
            self.stride,
            bias=self._relative_position_bias(),
            impl=self.impl,
        )
        return self.proj(out)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args
    ) -> None:
        """Keep the configured stride."""
        state_dict[f'{prefix}window_stride'] = torch.tensor(self.stride)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return (
            f'num_heads={self.num_heads}, window_size={self.window_size}, '
            f'stride={self.stride}, impl={self.impl!r}'
        )
