"""SMT: modulation at high resolution, attention at low resolution."""

from collections.abc import Sequence
from functools import partial
from typing import Any

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
from .pyramid import PyramidBackbone

# Of the norms in blocks and after stages; the others keep PyTorch's default.
_NORM_EPS = 1e-6


@MODELS.register_module()
class SMT(PyramidBackbone):
    """Scale-aware modulation transformer.

    Source: https://arxiv.org/abs/2307.08579, section 3. The first two stages
    have modulation, the third alternates modulation and attention among all
    tokens, the last has attention. The output of the norm after each stage is
    the input of the next stage.

    Upstream differences: the published detection code drops single values,
    not branches as its classification code and this one do.

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
        **kwargs: ``frozen_stages``, ``norm_eval``, ``with_cp`` and
            ``init_cfg``, see :class:`.pyramid.PyramidBackbone`.
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
        **kwargs: Any,
    ) -> None:
        arch = resolve_arch(type(self).__name__, arch, self.arch_zoo)

        def build_block(
            C: int, stage: int, index: int, rate: float
        ) -> nn.Module:
            parts = arch['modulation_heads'][stage]
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
            arch,
            partial(ConvStem, in_channels, kernel_size=arch['stem_kernel']),
            OverlappingPatchMerging,
            build_block,
            out_indices,
            norm_eps=_NORM_EPS,
            with_norm_between=True,
            drop_path_rate=drop_path_rate,
            **kwargs,
        )
        self.apply(_init_conv)


def _init_conv(module: nn.Module) -> None:
    """Initialize convolutions as published: He initialization by fan-out.

    Source: https://arxiv.org/abs/1502.01852, section 2.2.
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
