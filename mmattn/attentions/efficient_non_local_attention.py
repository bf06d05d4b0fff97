"""Global attention in linear time, by random features: ENLA."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.ops import (
    orthogonal_projection,
    random_feature_attention,
    sine_position,
)
from mmattn.registry import MODELS

from .checks import check_heads, check_map

# Shorter queries and keys are not scaled to unit length.
_MIN_LENGTH = 5e-5


@MODELS.register_module()
class EfficientNonLocalAttention(BaseModule):
    """Self-attention over the whole map, in time linear in its tokens.

    Source: https://arxiv.org/abs/2201.03794, section 3.2, and
    https://arxiv.org/abs/2406.14052, section 2.3. Queries and keys are scaled
    to one length in each head; positive random features approximate the
    softmax of their products. The result is not projected.

    Upstream differences: the published modules ignore their number of heads
    and have one. Their features differ in every process; here ``seed``
    determines them, so the processes of a distributed training agree.

    Args:
        embed_dims (int): Channels of the input and of the output.
        num_heads (int): Attention heads. Must divide ``embed_dims``. Defaults
            to 1, as published.
        key_dims (int, optional): Channels of queries and of keys, a multiple
            of ``num_heads``. Defaults to None, ``embed_dims``.
        num_features (int, optional): Random features of a head; more
            approximate the softmax better. Defaults to None, the channels of
            a head's key.
        amplification (float): Length of queries and keys. Defaults to 1, as
            in ENLTB; ENLCA has ``6 ** 0.5``.
        with_position (bool): Add sine positions before queries and keys are
            projected. ``embed_dims`` must be a multiple of 4. Defaults to
            False.
        seed (int): Seed of the features. Defaults to 0.
        impl (str): See ``mmattn.ops.list_implementations``. Defaults to
            ``'auto'``.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int = 1,
        key_dims: int | None = None,
        num_features: int | None = None,
        amplification: float = 1.0,
        with_position: bool = False,
        seed: int = 0,
        impl: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_heads(self, embed_dims, num_heads)
        if key_dims is None:
            key_dims = embed_dims
        elif key_dims < 1 or key_dims % num_heads != 0:
            raise ValueError(
                'EfficientNonLocalAttention expects num_heads to divide '
                f'key_dims, got {key_dims=}, {num_heads=}'
            )
        if with_position and embed_dims % 4 != 0:
            raise ValueError(
                'EfficientNonLocalAttention expects embed_dims to be a '
                f'multiple of 4 with_position, got {embed_dims}'
            )
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.amplification = amplification
        self.with_position = with_position
        self.impl = impl
        self.q = nn.Linear(embed_dims, key_dims)
        self.k = nn.Linear(embed_dims, key_dims)
        self.v = nn.Linear(embed_dims, embed_dims)
        dims = key_dims // num_heads
        # Weights are trained for these features: checkpoints contain both.
        self.register_buffer(
            'projection',
            orthogonal_projection(num_features or dims, dims, seed),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        q, k = self.embed(x)
        v = self._split_heads(self.v(x))
        out = random_feature_attention(q, k, v, self.projection, self.impl)
        return out.transpose(1, 2).reshape(x.shape)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys of a map, each ``amplification`` long.

        Args:
            x (Tensor): ``(B, H, W, C)``.

        Returns:
            tuple[Tensor, Tensor]: Each ``(B, h, N, d)`` with ``N = H * W``,
            float32 or wider.
        """
        check_map(self, x, self.embed_dims)
        if self.with_position:
            place = sine_position(tuple(x.shape[1:3]), x.shape[-1], x.device)
            x = x + place.to(x.dtype)
        return self._scaled(self.q(x)), self._scaled(self.k(x))

    def redraw_projection(self, seed: int) -> None:
        """Replace the random features in place."""
        rows = orthogonal_projection(*self.projection.shape, seed)
        self.projection.copy_(rows)

    def _split_heads(self, x: Tensor) -> Tensor:
        """``(B, H, W, h * d)`` to ``(B, h, N, d)``."""
        heads = x.flatten(1, 2).unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2)

    def _scaled(self, x: Tensor) -> Tensor:
        x = self._split_heads(x)
        # The squares of half-precision numbers over- and underflow.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.amplification * F.normalize(x, dim=-1, eps=_MIN_LENGTH)

    def extra_repr(self) -> str:
        return (
            f'num_heads={self.num_heads}, '
            f'num_features={len(self.projection)}, '
            f'amplification={self.amplification:g}, '
            f'with_position={self.with_position}, impl={self.impl!r}'
        )
