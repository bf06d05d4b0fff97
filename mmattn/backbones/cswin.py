"""CSWin Transformer: a pyramid with cross-shaped windows."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn as nn

from mmattn.attentions import CrossShapedWindowAttention
from mmattn.layers import (
    AttentionBlock,
    OverlappingPatchEmbed,
    OverlappingPatchMerging,
)
from mmattn.registry import MODELS

from .arch import Arch, resolve_arch
from .pyramid import PyramidBackbone

# The last stage attends to the whole map.
STRIPE_WIDTHS = (1, 2, 7, None)


@MODELS.register_module()
class CSWin(PyramidBackbone):
    """CSWin Transformer.

    Source: https://arxiv.org/abs/2107.00652, section 3.4 and table 1. An
    image side of n pixels gives ``(n + 1) // 4`` tokens in the first stage,
    and each later stage halves the map, rounded up.

    Upstream differences: the published code has one model for classification,
    which takes square images of one size, and one for dense prediction. This
    one equals both, see ``CrossShapedWindowAttention``.

    Args:
        arch (str | dict): A name of ``arch_zoo`` or a dict with its keys:
            ``embed_dims``, channels of the first stage, doubled in each later
            one; ``depths``, blocks of each stage; ``num_heads``, attention
            heads of each stage (even with stripes). Defaults to 'tiny'.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages whose maps are returned, at
            strides 4, 8, 16 and 32. Defaults to (0, 1, 2, 3).
        stripe_widths (Sequence[int | None]): Columns or rows of a stripe in
            each stage, in tokens; None attends to the whole map. Models that
            were published for 384 pixels have (1, 2, 12, None). Defaults to
            (1, 2, 7, None).
        mlp_ratio (float): Hidden channels of the MLPs per channel of the
            stage. Defaults to 4.
        drop_path_rate (float): Drop-path rate of the last block; it grows
            linearly from 0. Defaults to 0.2.
        **kwargs: ``frozen_stages``, ``norm_eval``, ``with_cp`` and
            ``init_cfg``, see :class:`.pyramid.PyramidBackbone`.
    """

    # fmt: off
    arch_zoo = {
        'nano':  dict(embed_dims=24,  depths=(1, 2, 4, 1),  num_heads=(2, 4, 8, 16)),  # noqa: E501
        'tiny':  dict(embed_dims=64,  depths=(1, 2, 21, 1), num_heads=(2, 4, 8, 16)),  # noqa: E501
        'small': dict(embed_dims=64,  depths=(2, 4, 32, 2), num_heads=(2, 4, 8, 16)),  # noqa: E501
        'base':  dict(embed_dims=96,  depths=(2, 4, 32, 2), num_heads=(4, 8, 16, 32)),  # noqa: E501
        'large': dict(embed_dims=144, depths=(2, 4, 32, 2), num_heads=(6, 12, 24, 24)),  # noqa: E501
    }
    # fmt: on

    def __init__(
        self,
        arch: Arch = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        stripe_widths: Sequence[int | None] = STRIPE_WIDTHS,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.2,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        arch = resolve_arch(owner, arch, self.arch_zoo)
        check_stripe_widths(owner, stripe_widths, len(arch['depths']))

        def build_block(
            C: int, stage: int, index: int, rate: float
        ) -> nn.Module:
            attention = CrossShapedWindowAttention(
                C, arch['num_heads'][stage], stripe_widths[stage]
            )
            return AttentionBlock(attention, C, mlp_ratio, rate)

        super().__init__(
            arch,
            partial(OverlappingPatchEmbed, in_channels),
            OverlappingPatchMerging,
            build_block,
            out_indices,
            drop_path_rate=drop_path_rate,
            **kwargs,
        )


def check_stripe_widths(
    owner: str, stripe_widths: Sequence[int | None], num_stages: int
) -> None:
    """Raise ValueError unless each stage has a stripe width or None."""
    if len(stripe_widths) != num_stages:
        raise ValueError(
            f'{owner} expects one entry of stripe_widths for each of '
            f'{num_stages} stages, got {tuple(stripe_widths)}'
        )
