"""BOAT-CSWin: CSWin Transformer with attention in feature space."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn as nn

from mmattn.attentions import CrossShapedWindowAttention, FeatureSpaceAttention
from mmattn.layers import (
    AttentionBlock,
    FeatureSpaceBlock,
    OverlappingPatchEmbed,
    OverlappingPatchMerging,
)
from mmattn.registry import MODELS

from .arch import Arch, resolve_arch
from .cswin import STRIPE_WIDTHS, CSWin, check_stripe_widths
from .pyramid import PyramidBackbone

# The published weights were trained with this instead of d ** -0.5.
_FEATURE_SCALE = 1.0


@MODELS.register_module()
class BOATCSWin(PyramidBackbone):
    """CSWin Transformer that also attends among similar, distant tokens.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.3. The even
    blocks of every stage have feature-space attention between stripe
    attention and MLP.

    Upstream differences: if a map is one cluster, as in the last stage at 224
    pixels, images attend to their neighbors in the batch in the published
    code, which fails for an odd batch; here images are independent.

    Args:
        arch (str | dict): A name of ``arch_zoo`` or a dict with its keys:
            ``embed_dims``, channels of the first stage, doubled in each later
            one; ``depths``, blocks of each stage; ``num_heads``, attention
            heads of each stage (even with stripes). Defaults to 'tiny'.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages whose maps are returned, at
            strides 4, 8, 16 and 32. Defaults to (0, 1, 2, 3).
        stripe_widths (Sequence[int | None]): Columns or rows of a stripe in
            each stage, in tokens; None attends to the whole map. Defaults to
            (1, 2, 7, None).
        mlp_ratio (float): Hidden channels of the MLPs per channel of the
            stage. Defaults to 4.
        feature_attention (dict, optional): Arguments of
            ``FeatureSpaceAttention`` other than its defaults and the scale of
            1.0 that the published weights were trained with. Defaults to
            None.
        drop_path_rate (float): Drop-path rate of the last block; it grows
            linearly from 0. Defaults to 0.2.
        **kwargs: ``frozen_stages``, ``norm_eval``, ``with_cp`` and
            ``init_cfg``, see :class:`.pyramid.PyramidBackbone`.
    """

    arch_zoo = {
        name: CSWin.arch_zoo[name]
        for name in ('nano', 'tiny', 'small', 'base')
    }

    def __init__(
        self,
        arch: Arch = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        stripe_widths: Sequence[int | None] = STRIPE_WIDTHS,
        mlp_ratio: float = 4.0,
        feature_attention: dict | None = None,
        drop_path_rate: float = 0.2,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        arch = resolve_arch(owner, arch, self.arch_zoo)
        check_stripe_widths(owner, stripe_widths, len(arch['depths']))
        feature_args = {'scale': _FEATURE_SCALE, **(feature_attention or {})}

        def build_block(
            C: int, stage: int, index: int, rate: float
        ) -> nn.Module:
            h = arch['num_heads'][stage]
            attention = CrossShapedWindowAttention(C, h, stripe_widths[stage])
            if index % 2 == 1:
                return AttentionBlock(attention, C, mlp_ratio, rate)
            return FeatureSpaceBlock(
                attention,
                FeatureSpaceAttention(C, h, **feature_args),
                C,
                mlp_ratio,
                drop_path_rate=rate,
                feature_drop_path_rate=rate,
            )

        super().__init__(
            arch,
            partial(OverlappingPatchEmbed, in_channels),
            OverlappingPatchMerging,
            build_block,
            out_indices,
            drop_path_rate=drop_path_rate,
            **kwargs,
        )
