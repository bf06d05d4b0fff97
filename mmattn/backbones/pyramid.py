"""The skeleton of every pyramid: stages, outputs, freezing, checkpoints.

Axes: B batch, H W rows and columns, C channels. Inside, maps are
``(B, H, W, C)``; images come in and maps go out as ``(B, C, H, W)``.
"""

import re
from collections.abc import Callable, Sequence

import torch.nn as nn
from torch import Tensor

from .activation_checkpointing import checkpointed
from .arch import drop_path_schedule
from .base import BaseBackbone, InitCfg, init_linear


class PyramidStage(nn.Module):
    """Blocks at one resolution, behind the downsampling that leads to it.

    Args:
        downsample (nn.Module): Applied first; the identity in the first
            stage.
        blocks (list[nn.Module]): Take and return maps ``(B, H, W, C)``.
    """

    def __init__(
        self, downsample: nn.Module, blocks: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, with_cp: bool = False) -> Tensor:
        """Map ``(B, H, W, C)`` to the map of the stage.

        ``with_cp`` recomputes the blocks in the backward pass.
        """
        x = self.downsample(x)
        for block in self.blocks:
            x = checkpointed(block, x) if with_cp else block(x)
        return x


class PyramidBackbone(BaseBackbone):
    """A backbone of several stages, each at half the resolution before.

    Stages behind the last of ``out_indices`` are not built, so that every
    parameter contributes to the output.

    Args:
        arch (dict): ``embed_dims``, the channels of the first stage, doubled
            in each later one, and ``depths``, the blocks of each stage.
        build_stem (Callable): Maps the channels of the first stage to a
            module from images ``(B, in_channels, H, W)`` to a map
            ``(B, H', W', C)``.
        build_downsample (Callable): Maps the channels of a stage and of the
            next one to a module that leads to the next one.
        build_block (Callable): Maps ``(channels, stage, index,
            drop_path_rate)`` to a block.
        out_indices (Sequence[int]): Stages whose maps are returned, each
            after its own LayerNorm, at strides 4, 8, 16 and 32. Defaults to
            (0, 1, 2, 3).
        norm_eps (float): Added to the variance in these LayerNorms. Defaults
            to 1e-5.
        with_norm_between (bool): Every stage has such a LayerNorm, whose
            output is the input of the next stage. Defaults to False: the
            norms are outside of the path to the next stage.
        drop_path_rate (float): Drop-path rate of the last block; it grows
            linearly from 0. Defaults to 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, n also the first
            n stages, which stay in evaluation mode. Defaults to -1.
        norm_eval (bool): Keep batch normalization in evaluation mode.
            Defaults to False.
        with_cp (bool): Recompute the blocks in the backward pass to save
            memory. Defaults to False.
        init_cfg (dict | list[dict], optional): Initialization config. For
            ``dict(type='Pretrained', checkpoint=...)`` see
            ``mmattn.checkpoints.BackbonePretrained``. Defaults to None.
    """

    def __init__(
        self,
        arch: dict,
        build_stem: Callable[[int], nn.Module],
        build_downsample: Callable[[int, int], nn.Module],
        build_block: Callable[[int, int, int, float], nn.Module],
        out_indices: Sequence[int] = (0, 1, 2, 3),
        norm_eps: float = 1e-5,
        with_norm_between: bool = False,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg = None,
    ) -> None:
        depths = arch['depths']
        super().__init__(
            len(depths), out_indices, frozen_stages, norm_eval, init_cfg
        )
        channels = [arch['embed_dims'] * 2**i for i in range(len(depths))]
        self.num_stages = len(depths)
        self.out_channels = tuple(channels[i] for i in out_indices)
        self.with_norm_between = with_norm_between
        self.with_cp = with_cp

        rates = drop_path_schedule(drop_path_rate, depths)
        self.stem = build_stem(channels[0])
        self.stages = nn.ModuleList()
        for i in range(max(out_indices) + 1):
            C, downsample = channels[i], nn.Identity()
            if i > 0:
                downsample = build_downsample(channels[i - 1], C)
            blocks = [
                build_block(C, i, j, rate) for j, rate in enumerate(rates[i])
            ]
            self.stages.append(PyramidStage(downsample, blocks))
        for i in self.norm_indices:
            self.add_module(
                f'norm{i}', nn.LayerNorm(channels[i], eps=norm_eps)
            )
        self.apply(init_linear)
        self.freeze()

    @property
    def norm_indices(self) -> tuple[int, ...]:
        """Stages that have a LayerNorm behind them."""
        if self.with_norm_between:
            return tuple(range(len(self.stages)))
        return self.out_indices

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images to one map for each of ``out_indices``.

        Args:
            x (Tensor): ``(B, in_channels, H, W)``, any H and W from the size
                of a patch up.

        Returns:
            tuple[Tensor]: ``(B, C_i, H_i, W_i)``.
        """
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = out = stage(x, self.with_cp)
            if i in self.norm_indices:
                out = getattr(self, f'norm{i}')(x)
            if i in self.out_indices:
                outs.append(out.permute(0, 3, 1, 2).contiguous())
            if self.with_norm_between:
                x = out
        return tuple(outs)

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            param_name (str): Name of the parameter.
            prefix (str): Prefix of the backbone. Defaults to ''.

        Returns:
            tuple[int, int]: The depth and the number of depths. The depth is
            0 for the stem, k for the k-th block and the downsampling (and the
            norm ``with_norm_between``) before it, and one more than that of
            the last block for everything else.
        """
        depths = [len(stage.blocks) for stage in self.stages]
        num_layers = sum(depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        part, *rest = param_name[len(prefix) :].split('.')
        if part == 'stem':
            return 0, num_layers
        stage, index = len(depths), 0
        if part == 'stages':
            stage = int(rest[0])
            index = int(rest[2]) if rest[1] == 'blocks' else 0
        elif self.with_norm_between and re.fullmatch(r'norm\d+', part):
            stage = int(part[4:]) + 1
        return sum(depths[:stage]) + index + 1, num_layers

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        frozen = [self.stem, *self.stages[: self.frozen_stages]]
        frozen += [
            getattr(self, f'norm{i}')
            for i in self.norm_indices
            if i < self.frozen_stages
        ]
        return frozen

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args
    ) -> None:
        """Ignore the weights of stages and norms that are not built."""
        name = re.compile(re.escape(prefix) + r'(stages\.|norm)(\d+)\.')
        for key in list(state_dict):
            found = name.match(key)
            # Stages that the arch does not have remain unexpected.
            if found is None or int(found[2]) >= self.num_stages:
                continue
            built = self.norm_indices
            if found[1] == 'stages.':
                built = range(len(self.stages))
            if int(found[2]) not in built:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)
