"""A feature pyramid whose levels exchange information by attention."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.attentions import KeyValueAttention
from mmattn.ops import sine_position
from mmattn.registry import MODELS


@MODELS.register_module()
class KeyValueFusion(BaseModule):
    """Let every level of a pyramid attend to pooled tokens of all levels.

    A 1x1 convolution maps the levels to one width. Each level is pooled to
    ``pool_size ** 2`` tokens, which get position and level embeddings. Each
    token of each level attends to the pooled tokens of all levels, with a
    residual; a 3x3 convolution follows. The cost is linear in the tokens of
    the maps, which have the sizes and channels of an FPN's.

    Args:
        in_channels (Sequence[int]): Channels of the levels.
        out_channels (int): Channels of the output maps, a multiple of 4.
            Defaults to 256.
        num_outs (int, optional): Number of output maps; those beyond the
            levels halve the last one repeatedly. Defaults to None, the number
            of levels used.
        start_level (int): First level used. Defaults to 0.
        num_heads (int): Attention heads. Must divide ``out_channels``.
            Defaults to 8.
        pool_size (int): Side of the grid of pooled tokens of a level.
            Defaults to 8.
        init_cfg (dict, optional): Initialization config. Defaults to Xavier
            initialization of the convolutions.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        num_outs: int | None = None,
        start_level: int = 0,
        num_heads: int = 8,
        pool_size: int = 8,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            init_cfg
            or dict(type='Xavier', layer='Conv2d', distribution='uniform')
        )
        used = list(in_channels)[start_level:]
        num_outs = len(used) if num_outs is None else num_outs
        if start_level < 0 or not used or num_outs < len(used):
            raise ValueError(
                'KeyValueFusion expects start_level to be one of the levels '
                'and num_outs to be at least the levels from there, got '
                f'in_channels={list(in_channels)}, {start_level=}, '
                f'{num_outs=}'
            )
        if pool_size < 1 or out_channels % 4 != 0:
            raise ValueError(
                'KeyValueFusion expects pool_size >= 1 and out_channels to '
                f'be a multiple of 4, got {pool_size=}, {out_channels=}'
            )
        self.in_channels = list(in_channels)
        self.out_channels = out_channels
        self.num_outs = num_outs
        self.start_level = start_level
        self.pool_size = pool_size
        self.lateral_convs = nn.ModuleList(
            nn.Conv2d(channels, out_channels, 1) for channels in used
        )
        self.norms = nn.ModuleList(nn.LayerNorm(out_channels) for _ in used)
        self.attns = nn.ModuleList(
            KeyValueAttention(out_channels, num_heads, with_position=True)
            for _ in used
        )
        self.out_convs = nn.ModuleList(
            nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in used
        )
        self.level_embed = nn.Parameter(torch.empty(len(used), out_channels))
        nn.init.trunc_normal_(self.level_embed, std=0.02)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map each level to a map of one width, and add smaller maps.

        Args:
            inputs (Sequence[Tensor]): Each ``(B, C_i, H_i, W_i)``.

        Returns:
            tuple[Tensor]: ``num_outs`` maps ``(B, out_channels, H_i, W_i)``.

        Raises:
            ValueError: If the number of levels differs from ``in_channels``.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f'KeyValueFusion expects {len(self.in_channels)} levels, got '
                f'{len(inputs)}'
            )
        levels = [
            conv(x).permute(0, 2, 3, 1)  # (B, H, W, C)
            for conv, x in zip(self.lateral_convs, inputs[self.start_level :])
        ]
        normed = [norm(x) for norm, x in zip(self.norms, levels)]
        values = torch.cat([self._pool(x) for x in normed], dim=1)
        keys = values + self._places(values)
        outs = []
        for x, z, attn, conv in zip(
            levels, normed, self.attns, self.out_convs
        ):
            x = x + attn(z, keys, values)
            outs.append(conv(x.permute(0, 3, 1, 2)))
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)

    def _pool(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` to ``(B, pool_size ** 2, C)``."""
        x = F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), self.pool_size)
        return x.flatten(2).transpose(1, 2)

    def _places(self, tokens: Tensor) -> Tensor:
        """Place and level of the pooled tokens, ``(L, C)``."""
        size = (self.pool_size, self.pool_size)
        place = sine_position(size, self.out_channels, tokens.device)
        place = place.flatten(0, 1).to(tokens.dtype)
        level = self.level_embed.to(tokens.dtype)[:, None]
        return (place + level).flatten(0, 1)
