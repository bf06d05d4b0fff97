"""The encoder of Perspective+ U-Net: two-path convolutions and ENLTBs."""

import re
from collections.abc import Sequence

import torch
import torch.nn as nn
from mmcv.cnn import ConvModule
from torch import Tensor

from mmattn.attentions import EfficientNonLocalAttention
from mmattn.layers import AttentionBlock, TwoPathBlock
from mmattn.layers.patches import check_images
from mmattn.registry import MODELS

from .activation_checkpointing import checkpointed
from .arch import Arch, drop_path_schedule, resolve_arch
from .base import BaseBackbone, InitCfg, init_linear
from .scale_integrator import ScaleIntegrator

# Levels from this one on have a transformer path beside the convolutions.
_FIRST_DEEP = 2


class PerspectiveStage(nn.Module):
    """One level: convolutions and, on deep levels, transformer blocks.

    Args:
        level (int): From 0, at full resolution.
        in_channels (int): Channels of the level before, or of the image.
        channels (int): Channels of this level.
        rates (Sequence[float]): Drop-path rates of the transformer blocks.
    """

    def __init__(
        self,
        level: int,
        in_channels: int,
        channels: int,
        rates: Sequence[float],
    ) -> None:
        super().__init__()
        self.is_deep = level >= _FIRST_DEEP
        self.downsample = nn.MaxPool2d(2) if level > 0 else nn.Identity()
        self.conv = TwoPathBlock(in_channels, channels)
        self.blocks = nn.ModuleList(
            AttentionBlock(
                EfficientNonLocalAttention(channels, seed=index),
                channels,
                drop_path_rate=rate,
            )
            for index, rate in enumerate(rates)
        )
        if level > _FIRST_DEEP:
            options = dict(norm_cfg=dict(type='BN'), inplace=False)
            self.path_downsample = ConvModule(
                in_channels, channels, 2, stride=2, **options
            )
            self.path_adjust = nn.Conv2d(2 * channels, channels, 1)

    def forward(
        self, x: Tensor, before: Tensor | None, with_cp: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The level's map and that of its transformer path, or None.

        Args:
            x (Tensor): Map of the level above, ``(B, C', H', W')``, or the
                image.
            before (Tensor, optional): Map of the transformer path of the
                level above; None on the first level that has the path.
            with_cp (bool): Recompute the blocks in the backward pass.
        """
        x = self.downsample(x)
        x = checkpointed(self.conv, x) if with_cp else self.conv(x)
        if not self.is_deep:
            return x, None
        deep = x
        if before is not None:
            before = self.path_downsample(before)
            deep = self.path_adjust(torch.cat((x, before), dim=1))
        deep = deep.permute(0, 2, 3, 1)  # (B, H, W, C)
        for block in self.blocks:
            deep = checkpointed(block, deep) if with_cp else block(deep)
        return x, deep.permute(0, 3, 1, 2)


class ScaleFusion(nn.Module):
    """Fuse the integrator's result for a level with the level's map.

    Args:
        embed_dims (int): Channels of the integrator.
        channels (int): Channels of the level.
    """

    def __init__(self, embed_dims: int, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(embed_dims, channels, 1)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, integrated: Tensor, x: Tensor) -> Tensor:
        """``(B, embed_dims, H, W)`` and ``(B, C, H, W)`` to the latter."""
        return self.fuse(torch.cat((self.expand(integrated), x), dim=1))


@MODELS.register_module()
class PerspectiveEncoder(BaseBackbone):
    """Two-path convolutions on five levels, transformers on the deep three.

    Source: Perspective+ U-Net, https://arxiv.org/abs/2406.14052, section 2.
    The three deepest levels have a second path of transformer blocks with
    linear attention (ENLTB). A transformer over the tokens of all three
    exchanges information between them; each level fuses the result with its
    own map.

    Upstream differences: the published code takes images of 224 x 224 only
    and lets images of a batch see each other, see ``integration``; dropout of
    activations is left out.

    Args:
        arch (str | dict): A name of ``arch_zoo`` or a dict with the keys
            embed_dims (int): channels of the first level, doubled in each
            later one;
            depths (Sequence[int]): transformer blocks of each level, 0 in
            the first two;
            integrator_dims, integrator_depth, integrator_heads,
            integrator_hidden_dims (int): channels, layers, heads and hidden
            channels of the transformer over the three deepest levels.
            Defaults to 'base', the published one.
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (Sequence[int]): Levels whose maps are returned, at
            strides 1, 2, 4, 8 and 16. Defaults to (0, 1, 2, 3, 4).
        integration (str): ``'spatial'``: a token of the three deepest levels
            attends to all tokens of its image. ``'no_leak'``: to itself,
            which is what the published code computes for an image alone, and
            what published weights need. Defaults to 'spatial'.
        drop_path_rate (float): Drop-path rate of the last transformer block;
            it grows linearly from 0. Defaults to 0.1.
        frozen_stages (int): -1 and 0 freeze nothing, n the first n levels.
            Defaults to -1.
        norm_eval, with_cp, init_cfg: See :class:`.pyramid.PyramidBackbone`.
    """

    # fmt: off
    arch_zoo = {
        'nano': dict(embed_dims=8,  depths=(0, 0, 1, 1, 1), integrator_dims=32,  integrator_depth=1, integrator_heads=4, integrator_hidden_dims=64),  # noqa: E501
        'base': dict(embed_dims=64, depths=(0, 0, 2, 2, 2), integrator_dims=256, integrator_depth=6, integrator_heads=8, integrator_hidden_dims=2048),  # noqa: E501
    }
    # fmt: on

    def __init__(
        self,
        arch: Arch = 'base',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3, 4),
        integration: str = 'spatial',
        drop_path_rate: float = 0.1,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        arch = resolve_arch(type(self).__name__, arch, self.arch_zoo)
        depths = arch['depths']
        if len(depths) <= _FIRST_DEEP or any(depths[:_FIRST_DEEP]):
            raise ValueError(
                'PerspectiveEncoder expects depths of at least '
                f'{_FIRST_DEEP + 1} levels, 0 in the first {_FIRST_DEEP}, got '
                f'{depths}'
            )
        super().__init__(
            len(depths), out_indices, frozen_stages, norm_eval, init_cfg
        )
        channels = [arch['embed_dims'] * 2**i for i in range(len(depths))]
        self.in_channels = in_channels
        self.out_channels = tuple(channels[i] for i in out_indices)
        self.with_cp = with_cp
        # The deep maps depend on each other: all of them or none.
        last = max(out_indices)
        num_levels = last + 1 if last < _FIRST_DEEP else len(depths)
        rates = drop_path_schedule(drop_path_rate, depths)
        before = [in_channels, *channels]
        self.stages = nn.ModuleList(
            PerspectiveStage(i, before[i], channels[i], rates[i])
            for i in range(num_levels)
        )
        self.fusions = nn.ModuleDict()
        if num_levels > _FIRST_DEEP:
            self.integrator = ScaleIntegrator(
                channels[_FIRST_DEEP:],
                arch['integrator_dims'],
                arch['integrator_depth'],
                arch['integrator_heads'],
                arch['integrator_hidden_dims'],
                integration,
            )
            for i in out_indices:
                if i >= _FIRST_DEEP:
                    self.fusions[str(i)] = ScaleFusion(
                        arch['integrator_dims'], channels[i]
                    )
        self.apply(init_linear)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images to one map for each of ``out_indices``.

        Args:
            x (Tensor): ``(B, in_channels, H, W)``, any H and W from 16 up.

        Returns:
            tuple[Tensor]: ``(B, C_i, H_i, W_i)``.

        Raises:
            ValueError: If the images have other channels or are smaller.
        """
        check_images(self, x, self.in_channels, 2 ** (len(self.stages) - 1))
        maps, deep_maps, deep = [], [], None
        for stage in self.stages:
            x, deep = stage(x, deep, self.with_cp)
            maps.append(x)
            if deep is not None:
                deep_maps.append(deep)
        if deep_maps:
            integrated = self.integrator(deep_maps, self.with_cp)
            for key, fusion in self.fusions.items():
                i = int(key)
                maps[i] = fusion(integrated[i - _FIRST_DEEP], maps[i])
        return tuple(maps[i] for i in self.out_indices)

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Level of a parameter, and number of levels, as depths.

        See :meth:`.pyramid.PyramidBackbone.get_layer_depth`.
        """
        num_levels = len(self.stages)
        found = re.match(re.escape(prefix) + r'stages\.(\d+)\.', param_name)
        depth = int(found[1]) if found else num_levels
        return depth, num_levels + 1

    def _frozen_modules(self) -> list[nn.Module]:
        return list(self.stages[: max(self.frozen_stages, 0)])

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args
    ) -> None:
        """Ignore the weights of levels that are not built."""
        for key in list(state_dict):
            part, index, *_ = (key.removeprefix(prefix) + '.').split('.')
            if not key.startswith(prefix):
                continue
            if (
                (part == 'stages' and int(index) >= len(self.stages))
                or (part == 'fusions' and index not in self.fusions)
                or (part == 'integrator' and not hasattr(self, part))
            ):
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)
