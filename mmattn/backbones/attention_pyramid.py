"""A pyramid of any attentions, composed by config."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn as nn

from mmattn.attentions.build import build_attention
from mmattn.layers import AttentionBlock, PatchEmbed, PatchMerging
from mmattn.registry import MODELS

from .arch import Arch, resolve_arch
from .pyramid import PyramidBackbone

WINDOWS = (
    dict(type='mmattn.WindowAttention'),
    dict(type='mmattn.WindowAttention', with_shift=True),
)
SLIDING_WINDOWS = (dict(type='mmattn.SlidingWindowAttention', stride=4),)
# 49 keys for a map of 224 x 224 pixels at every stage, at its stride.
KEY_VALUES = tuple(
    (
        dict(
            type='mmattn.KeyValueAttention',
            spatial_reduction=reduction,
            with_position=True,
        ),
    )
    for reduction in (8, 4, 2, 1)
)


def non_local(depth: int) -> tuple[dict, ...]:
    """``depth`` layers of ENLTB with different random features."""
    return tuple(
        dict(
            type='mmattn.EfficientNonLocalAttention',
            with_position=True,
            seed=seed,
        )
        for seed in range(depth)
    )


@MODELS.register_module()
class AttentionPyramid(PyramidBackbone):
    """Swin Transformer's pyramid with the attention of each block by config.

    Source of stem, blocks and downsampling: https://arxiv.org/abs/2103.14030,
    figure 3. Stage i has ``embed_dims * 2 ** i`` channels at stride
    ``4 * 2 ** i``. The archs ``swin-*`` are Swin Transformer itself;
    ``sliding-window-*`` has overlapping windows in place of shifted ones,
    ``key-value-*`` attends to the whole map through 49 keys (at 224 x 224),
    ``enltb-*`` to the whole map through random features.

    Args:
        arch (str | dict): A name of ``arch_zoo`` or a dict with the keys
            embed_dims (int): channels of the first stage;
            depths (Sequence[int]): blocks of each stage;
            num_heads (Sequence[int]): attention heads of each stage;
            attentions (Sequence[Sequence[dict]]): configs of the attentions
            of each stage. Its blocks take them in turn; ``embed_dims`` and
            ``num_heads`` are given to each.
            Defaults to 'swin-tiny'.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages whose maps are returned. Defaults
            to (0, 1, 2, 3).
        mlp_ratio (float): Hidden channels of the MLPs per channel of the
            stage. Defaults to 4.
        drop_path_rate (float): Drop-path rate of the last block; it grows
            linearly from 0. Defaults to 0.2.
        **kwargs: ``frozen_stages``, ``norm_eval``, ``with_cp`` and
            ``init_cfg``, see :class:`.pyramid.PyramidBackbone`.
    """

    # fmt: off
    arch_zoo = {
        'swin-nano':           dict(embed_dims=24,  depths=(2, 2, 2, 2),  num_heads=(1, 2, 4, 8),   attentions=(WINDOWS,) * 4),  # noqa: E501
        'swin-tiny':           dict(embed_dims=96,  depths=(2, 2, 6, 2),  num_heads=(3, 6, 12, 24), attentions=(WINDOWS,) * 4),  # noqa: E501
        'swin-small':          dict(embed_dims=96,  depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24), attentions=(WINDOWS,) * 4),  # noqa: E501
        'swin-base':           dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), attentions=(WINDOWS,) * 4),  # noqa: E501
        'sliding-window-nano': dict(embed_dims=24,  depths=(2, 2, 2, 2),  num_heads=(1, 2, 4, 8),   attentions=(SLIDING_WINDOWS,) * 4),  # noqa: E501
        'sliding-window-tiny': dict(embed_dims=96,  depths=(2, 2, 6, 2),  num_heads=(3, 6, 12, 24), attentions=(SLIDING_WINDOWS,) * 4),  # noqa: E501
        'key-value-nano':      dict(embed_dims=24,  depths=(2, 2, 2, 2),  num_heads=(1, 2, 4, 8),   attentions=KEY_VALUES),  # noqa: E501
        'key-value-tiny':      dict(embed_dims=96,  depths=(2, 2, 4, 2),  num_heads=(3, 6, 12, 24), attentions=KEY_VALUES),  # noqa: E501
        'enltb-nano':          dict(embed_dims=24,  depths=(2, 2, 2, 2),  num_heads=(1, 1, 1, 1),   attentions=(non_local(2),) * 4),  # noqa: E501
        'enltb-tiny':          dict(embed_dims=96,  depths=(2, 2, 6, 2),  num_heads=(1, 1, 1, 1),   attentions=(non_local(6),) * 4),  # noqa: E501
    }
    # fmt: on

    def __init__(
        self,
        arch: Arch = 'swin-tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.2,
        **kwargs: Any,
    ) -> None:
        arch = resolve_arch(type(self).__name__, arch, self.arch_zoo)

        def build_block(
            C: int, stage: int, index: int, rate: float
        ) -> nn.Module:
            cfgs = arch['attentions'][stage]
            if not isinstance(cfgs, Sequence) or not cfgs:
                raise TypeError(
                    f'{type(self).__name__} expects attentions to hold one '
                    'list of configs for each stage, such as [[dict(type='
                    f"'mmattn.WindowAttention')], ...], got {cfgs!r} for "
                    f'stage {stage}'
                )
            attention = build_attention(
                type(self).__name__,
                cfgs[index % len(cfgs)],
                embed_dims=C,
                num_heads=arch['num_heads'][stage],
            )
            return AttentionBlock(attention, C, mlp_ratio, rate)

        super().__init__(
            arch,
            partial(PatchEmbed, in_channels),
            PatchMerging,
            build_block,
            out_indices,
            drop_path_rate=drop_path_rate,
            **kwargs,
        )
