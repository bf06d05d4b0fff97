"""BOAT-CSWin: CSWin Transformer with attention in feature space."""

from collections.abc import Sequence

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
from .pyramid import InitCfg, PyramidBackbone

# What the published weights were trained with, in place of d ** -0.5.
_FEATURE_SCALE = 1.0


@MODELS.register_module()
class BOATCSWin(PyramidBackbone):
    """CSWin Transformer that also attends among similar, distant tokens.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.3. The blocks of
    even index, of every stage, hold a feature-space attention between their
    stripe attention and their MLP.

    Upstream differences: where a map is one cluster, as in the last stage at
    224 pixels, the published code lets images attend to their neighbours in
    the batch, and fails for an odd batch; here images are independent.

    Args:
        arch (str | dict): A name of ``arch_zoo`` or a dict with the keys
            embed_dims (int): channels of the first stage, doubled in each
            later one;
            depths (Sequence[int]): blocks of each stage;
            num_heads (Sequence[int]): attention heads of each stage, even
            where there are stripes.
            Defaults to 'tiny'.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages whose maps are returned, at
            strides 4, 8, 16 and 32. Defaults to (0, 1, 2, 3).
        stripe_widths (Sequence[int | None]): Columns or rows of a stripe in
            each stage, in tokens; None attends to the whole map. Defaults to
            (1, 2, 7, None).
        mlp_ratio (float): Hidden channels of the MLPs, as a multiple
            of the stage's channels. Defaults to 4.
        feature_attention (dict, optional): Arguments of
            ``FeatureSpaceAttention`` other than its defaults and the scale of
            1.0 that the published weights were trained with. Defaults to
            None.
        drop_path_rate (float): Drop-path rate of the last block; it grows
            linearly from 0. Defaults to 0.2.
        frozen_stages (int): -1 freezes nothing, 0 the stem, n also the first
            n stages. Defaults to -1.
        norm_eval (bool): Keep batch normalization in evaluation mode.
            Defaults to False.
        with_cp (bool): Recompute the blocks in the backward pass to
            save memory. Defaults to False.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.
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
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        owner = type(self).__name__
        arch = resolve_arch(owner, arch, self.arch_zoo)
        depths, num_heads = arch['depths'], arch['num_heads']
        check_stripe_widths(owner, stripe_widths, len(depths))
        channels = [arch['embed_dims'] * 2**i for i in range(len(depths))]
        feature_args = {'scale': _FEATURE_SCALE, **(feature_attention or {})}

        def build_block(stage: int, index: int, rate: float) -> nn.Module:
            C, h = channels[stage], num_heads[stage]
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
            stem=OverlappingPatchEmbed(in_channels, channels[0]),
            build_block=build_block,
            build_downsample=lambda i: OverlappingPatchMerging(
                channels[i - 1], channels[i]
            ),
            channels=channels,
            depths=depths,
            out_indices=out_indices,
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
