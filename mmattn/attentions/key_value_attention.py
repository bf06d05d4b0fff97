"""Global attention with keys and values from another source or resolution."""

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.ops import attention, pad_map, padded_size, sine_position
from mmattn.registry import MODELS

from .checks import check_heads, check_map


@MODELS.register_module()
class KeyValueAttention(BaseModule):
    """Multi-head attention with its own projections of queries, keys, values.

    Source: https://arxiv.org/abs/1706.03762, section 3.2.2; the reduction of
    keys and values: https://arxiv.org/abs/2102.12122, section 3.3.

    With one map, every token attends to the whole map. Keys and values may
    also be another map or a sequence of tokens, which is neither reduced nor
    gets positions.

    Args:
        embed_dims (int): Channels of all inputs and of the output.
        num_heads (int): Attention heads. Must divide ``embed_dims``.
        spatial_reduction (int): Stride of a convolution that reduces keys and
            values. A map that it does not divide is zero-padded at the bottom
            and right. Defaults to 1, no convolution.
        with_position (bool): Add sine positions before the queries and keys
            of maps are projected. ``embed_dims`` must be a multiple of 4.
            Defaults to False.
        impl (str): See ``mmattn.ops.list_implementations``. Defaults to
            ``'auto'``.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        spatial_reduction: int = 1,
        with_position: bool = False,
        impl: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_heads(self, embed_dims, num_heads)
        if spatial_reduction < 1:
            raise ValueError(
                'KeyValueAttention expects spatial_reduction >= 1, got '
                f'{spatial_reduction}'
            )
        if with_position and embed_dims % 4 != 0:
            raise ValueError(
                'KeyValueAttention expects embed_dims to be a multiple of 4 '
                f'with_position, got {embed_dims}'
            )
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.spatial_reduction = spatial_reduction
        self.with_position = with_position
        self.impl = impl
        self.q_proj = nn.Linear(embed_dims, embed_dims)
        self.k_proj = nn.Linear(embed_dims, embed_dims)
        self.v_proj = nn.Linear(embed_dims, embed_dims)
        self.o_proj = nn.Linear(embed_dims, embed_dims)
        if spatial_reduction > 1:
            self.reduction = nn.Conv2d(
                embed_dims, embed_dims, spatial_reduction, spatial_reduction
            )
            self.reduction_norm = nn.LayerNorm(embed_dims)

    def forward(
        self, x: Tensor, key: Tensor | None = None, value: Tensor | None = None
    ) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``.

        Args:
            x (Tensor): Source of the queries, ``(B, H, W, C)``.
            key (Tensor, optional): Source of the keys, a map
                ``(B, H', W', C)`` or tokens ``(B, L, C)``. Defaults to
                ``value``, or ``x``.
            value (Tensor, optional): Source of the values, in the shape of
                ``key``. Defaults to ``key``.

        Raises:
            ValueError: If a shape does not fit.
        """
        check_map(self, x, self.embed_dims)
        if key is None:
            key = x if value is None else value
        if value is None:
            value = key
        self._check_source(x, key, value)
        source = self._reduced(value)
        v = self.v_proj(source)
        if key is not value:
            source = self._reduced(key)
        k = self.k_proj(self._placed(source))
        q = self.q_proj(self._placed(x))
        q, k, v = map(self._split_heads, (q, k, v))
        out = attention(q, k, v, impl=self.impl)  # (B, h, N, d)
        return self.o_proj(out.transpose(1, 2).reshape(x.shape))

    def _check_source(self, x: Tensor, key: Tensor, value: Tensor) -> None:
        B, C = x.shape[0], x.shape[-1]
        fits = (
            key.ndim in (3, 4)
            and key.shape == value.shape
            and key.shape[0] == B
            and key.shape[-1] == C
        )
        if not fits:
            raise ValueError(
                'KeyValueAttention expects key and value of one shape, '
                f"({B}, H', W', {C}) or ({B}, L, {C}), got "
                f'{tuple(key.shape)} and {tuple(value.shape)}'
            )

    def _reduced(self, x: Tensor) -> Tensor:
        r = self.spatial_reduction
        if r == 1 or x.ndim == 3:
            return x
        x = pad_map(x, padded_size(tuple(x.shape[1:3]), (r, r)))
        x = self.reduction(x.permute(0, 3, 1, 2))  # (B, C, H / r, W / r)
        return self.reduction_norm(x.permute(0, 2, 3, 1))

    def _placed(self, x: Tensor) -> Tensor:
        if not self.with_position or x.ndim == 3:
            return x
        place = sine_position(tuple(x.shape[1:3]), x.shape[-1], x.device)
        return x + place.to(x.dtype)

    def _split_heads(self, x: Tensor) -> Tensor:
        """``(B, *, h * d)`` to ``(B, h, N, d)``."""
        # In two steps: else Inductor would compile maps whose W is the number
        # of heads separately.
        x = x.flatten(1, -2).unflatten(-1, (self.num_heads, -1))
        return x.transpose(1, 2)

    def extra_repr(self) -> str:
        return (
            f'num_heads={self.num_heads}, '
            f'spatial_reduction={self.spatial_reduction}, '
            f'with_position={self.with_position}, impl={self.impl!r}'
        )
