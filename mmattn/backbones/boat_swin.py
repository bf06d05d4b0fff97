"""BOAT-Swin: Swin Transformer with attention in feature space."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn as nn

from mmattn.attentions import FeatureSpaceAttention, WindowAttention
from mmattn.layers import (
    AttentionBlock,
    FeatureSpaceBlock,
    PatchEmbed,
    PatchMerging,
)
from mmattn.registry import MODELS

from .arch import Arch, resolve_arch
from .pyramid import PyramidBackbone


@MODELS.register_module()
class BOATSwin(PyramidBackbone):
    """Swin Transformer that also attends among similar, distant tokens.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.3. The shifted
    (odd) blocks of the first three stages have feature-space attention
    between window attention and MLP.

    Args:
        arch (str | dict): A name of ``arch_zoo`` or a dict with its keys:
            ``embed_dims``, channels of the first stage, doubled in each later
            one; ``depths``, blocks of each stage; ``num_heads``, attention
            heads of each stage. Defaults to 'tiny'.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages whose maps are returned, at
            strides 4, 8, 16 and 32. Defaults to (0, 1, 2, 3).
        window_size (int): Window side, in tokens. Defaults to 7.
        mlp_ratio (float): Hidden channels of the MLPs per channel of the
            stage. Defaults to 4.
        feature_attention (dict, optional): Arguments of
            ``FeatureSpaceAttention`` other than its defaults. Defaults to
            None.
        drop_path_rate (float): Drop-path rate of the last block; it grows
            linearly from 0. Defaults to 0.2.
        **kwargs: ``frozen_stages``, ``norm_eval``, ``with_cp`` and
            ``init_cfg``, see :class:`.pyramid.PyramidBackbone`.
    """

    # fmt: off
    arch_zoo = {
        'nano':  dict(embed_dims=24,  depths=(2, 2, 2, 2),  num_heads=(1, 2, 4, 8)),  # noqa: E501
        'tiny':  dict(embed_dims=96,  depths=(2, 2, 6, 2),  num_heads=(3, 6, 12, 24)),  # noqa: E501
        'small': dict(embed_dims=96,  depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),  # noqa: E501
        'base':  dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),  # noqa: E501
    }
    # fmt: on

    def __init__(
        self,
        arch: Arch = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        feature_attention: dict | None = None,
        drop_path_rate: float = 0.2,
        **kwargs: Any,
    ) -> None:
        arch = resolve_arch(type(self).__name__, arch, self.arch_zoo)

        def build_block(
            C: int, stage: int, index: int, rate: float
        ) -> nn.Module:
            h = arch['num_heads'][stage]
            odd = index % 2 == 1
            attention = WindowAttention(C, h, window_size, with_shift=odd)
            if not odd or stage > 2:
                return AttentionBlock(attention, C, mlp_ratio, rate)
            in_feature_space = FeatureSpaceAttention(
                C, h, **(feature_attention or {})
            )
            # As published, without drop path in feature space.
            return FeatureSpaceBlock(
                attention, in_feature_space, C, mlp_ratio, rate
            )

        super().__init__(
            arch,
            partial(PatchEmbed, in_channels),
            PatchMerging,
            build_block,
            out_indices,
            drop_path_rate=drop_path_rate,
            **kwargs,
        )
