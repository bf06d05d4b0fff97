"""A transformer over the tokens of several maps at once."""

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from mmattn.attentions import KeyValueAttention

from .activation_checkpointing import checkpointed

INTEGRATIONS = ('spatial', 'no_leak')


class IntegratorLayer(nn.Module):
    """Attention, then an MLP, each added before and normalized after.

    Args:
        embed_dims (int): Channels C.
        num_heads (int): Attention heads. Must divide ``embed_dims``.
        hidden_dims (int): Hidden channels of the MLP.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, hidden_dims: int
    ) -> None:
        super().__init__()
        self.attn = KeyValueAttention(embed_dims, num_heads)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, N, C)`` to ``(B, N, C)``."""
        x = self.norm1(x + self.attn(x[:, None])[:, 0])
        return self.norm2(x + self.fc2(self.fc1(x).relu()))


class ScaleIntegrator(nn.Module):
    """Let the tokens of several maps attend to each other.

    Source: https://arxiv.org/abs/2406.14052, section 2.2, spatial cross-scale
    integrator.

    Upstream differences: the published code confuses the axes of images and
    tokens: a token attends to the same token of the other images in the
    batch. ``'no_leak'`` equals that code for a single image, where each token
    attends to itself.

    Args:
        in_channels (Sequence[int]): Channels of the maps.
        embed_dims (int): Channels of the tokens.
        depth (int): Layers.
        num_heads (int): Attention heads. Must divide ``embed_dims``.
        hidden_dims (int): Hidden channels of the MLPs.
        integration (str): ``'spatial'``, every token attends to all tokens of
            all maps of its image, or ``'no_leak'``, to itself.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        embed_dims: int,
        depth: int,
        num_heads: int,
        hidden_dims: int,
        integration: str,
    ) -> None:
        super().__init__()
        if integration not in INTEGRATIONS:
            raise ValueError(
                f'ScaleIntegrator expects integration to be one of '
                f'{INTEGRATIONS}, got {integration!r}'
            )
        self.integration = integration
        self.reduce = nn.ModuleList(
            nn.Conv2d(channels, embed_dims, 1) for channels in in_channels
        )
        self.layers = nn.ModuleList(
            IntegratorLayer(embed_dims, num_heads, hidden_dims)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dims)

    def forward(
        self, maps: Sequence[Tensor], with_cp: bool = False
    ) -> list[Tensor]:
        """Map ``(B, C_i, H_i, W_i)`` each to ``(B, embed_dims, H_i, W_i)``.

        ``with_cp`` recomputes the layers in the backward pass.
        """
        maps = [conv(x) for conv, x in zip(self.reduce, maps)]
        sizes = [x.shape[2:] for x in maps]
        tokens = [x.flatten(2).transpose(1, 2) for x in maps]
        x = torch.cat(tokens, dim=1)  # (B, N, C)
        B, N, C = x.shape
        if self.integration == 'no_leak':
            x = x.reshape(B * N, 1, C)
        for layer in self.layers:
            x = checkpointed(layer, x) if with_cp else layer(x)
        x = self.norm(x).reshape(B, N, C)
        parts = x.split([height * width for height, width in sizes], dim=1)
        return [
            part.transpose(1, 2).unflatten(2, size)
            for part, size in zip(parts, sizes)
        ]
