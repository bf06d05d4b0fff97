"""SMT: modulation at high resolution, attention at low resolution."""

from collections.abc import Sequence

import torch.nn as nn

from mmattn.attentions import MultiHeadSelfAttention, ScaleAwareModulation
from mmattn.layers import (
    AttentionBlock,
    ConvMLP,
    ConvStem,
    MixedConvolution,
    OverlappingPatchMerging,
)
from mmattn.registry import MODELS

from .arch import Arch, resolve_arch
from .pyramid import InitCfg, PyramidBackbone

# Of the norms in and behind the blocks; those of the stem and of the patch
# mergings keep PyTorch's.
_NORM_EPS = 1e-6


@MODELS.register_module()
class SMT(PyramidBackbone):
    """Scale-aware modulation transformer.

    Source: https://arxiv.org/abs/2307.08579, section 3. The first two stages
    modulate, the third alternates modulation with attention among all tokens,
    the last attends. The norm behind each stage lies on the path to the next.

    Upstream differences: the published code for detection drops single values
    where its classification code drops branches; here it is branches.

    Args:
        arch (str | dict): A name of ``arch_zoo`` or a dict with the keys
            embed_dims (int): channels of the first stage, doubled in each
            later one;
            depths (Sequence[int]): blocks of each stage;
            modulation_heads (Sequence[int]): kernel sizes of the modulation
            in each stage, 0 where a stage has none;
            num_heads (Sequence[int]): attention heads of each stage, 0 where
            a stage does not attend. A stage with both alternates, beginning
            with modulation;
            mlp_ratios (Sequence[float]): hidden channels of the MLPs
            of each stage, as a multiple of its channels;
            stem_kernel (int): side of the stem's first convolution, odd;
            layer_scale (float | None): first value of the factors on each
            branch; None for no factors.
            Defaults to 'tiny'.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages whose maps are returned, at
            strides 4, 8, 16 and 32. Defaults to (0, 1, 2, 3).
        drop_path_rate (float): Drop-path rate of the last block; it grows
            linearly from 0. Defaults to 0.1.
        frozen_stages (int): -1 freezes nothing, 0 the stem, n also the first
            n stages. Defaults to -1.
        norm_eval (bool): Keep batch normalization in evaluation mode.
            Defaults to False.
        with_cp (bool): Recompute the blocks in the backward pass to
            save memory. Defaults to False.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.
    """

    # fmt: off
    arch_zoo = {
        'nano':  dict(embed_dims=24, depths=(2, 2, 2, 2),  modulation_heads=(4, 4, 4, 0), num_heads=(0, 0, 4, 8),  mlp_ratios=(4, 4, 4, 2), stem_kernel=3, layer_scale=None),  # noqa: E501
        'tiny':  dict(embed_dims=64, depths=(2, 2, 8, 1),  modulation_heads=(4, 4, 4, 0), num_heads=(0, 0, 8, 16), mlp_ratios=(4, 4, 4, 2), stem_kernel=3, layer_scale=None),  # noqa: E501
        'small': dict(embed_dims=64, depths=(3, 4, 18, 2), modulation_heads=(4, 4, 4, 0), num_heads=(0, 0, 8, 16), mlp_ratios=(4, 4, 4, 2), stem_kernel=3, layer_scale=None),  # noqa: E501
        'base':  dict(embed_dims=64, depths=(4, 6, 28, 2), modulation_heads=(4, 4, 4, 0), num_heads=(0, 0, 8, 16), mlp_ratios=(8, 6, 4, 2), stem_kernel=7, layer_scale=None),  # noqa: E501
        'large': dict(embed_dims=96, depths=(4, 6, 28, 4), modulation_heads=(4, 4, 4, 0), num_heads=(0, 0, 8, 16), mlp_ratios=(8, 6, 4, 2), stem_kernel=7, layer_scale=1e-4),  # noqa: E501
    }
    # fmt: on

    def __init__(
        self,
        arch: Arch = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.1,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        arch = resolve_arch(type(self).__name__, arch, self.arch_zoo)
        depths = arch['depths']
        channels = [arch['embed_dims'] * 2**i for i in range(len(depths))]

        def build_block(stage: int, index: int, rate: float) -> nn.Module:
            C, parts = channels[stage], arch['modulation_heads'][stage]
            heads = arch['num_heads'][stage]
            attends = heads and (index % 2 == 1 or not parts)
            return AttentionBlock(
                MultiHeadSelfAttention(C, heads)
                if attends
                else ScaleAwareModulation(C, parts),
                C,
                arch['mlp_ratios'][stage],
                rate,
                mlp_type=ConvMLP,
                norm_eps=_NORM_EPS,
                layer_scale=arch['layer_scale'],
            )

        super().__init__(
            stem=ConvStem(in_channels, channels[0], arch['stem_kernel']),
            build_block=build_block,
            build_downsample=lambda i: OverlappingPatchMerging(
                channels[i - 1], channels[i]
            ),
            channels=channels,
            depths=depths,
            out_indices=out_indices,
            norm_eps=_NORM_EPS,
            with_norm_between=True,
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.apply(_init_conv)


def _init_conv(module: nn.Module) -> None:
    """Draw kernels such that the values keep their size going backward.

    Source: https://arxiv.org/abs/1502.01852, section 2.2, as published.
    """
    if not isinstance(module, (nn.Conv2d, MixedConvolution)):
        return
    for weight in module.parameters(recurse=False):
        if weight.ndim == 1:
            nn.init.zeros_(weight)
            continue
        groups = getattr(module, 'groups', len(weight))
        fan_out = weight[0, 0].numel() * len(weight) / groups
        nn.init.normal_(weight, std=(2 / fan_out) ** 0.5)
