"""Shared by all backbones."""

from collections.abc import Sequence

import torch.nn as nn
from mmengine.model import BaseModule, PretrainedInit
from torch.nn.modules.batchnorm import _BatchNorm

from mmattn.registry import WEIGHT_INITIALIZERS

InitCfg = dict | list | None


class BaseBackbone(BaseModule):
    """Output indices, frozen stages and norms, pretrained weights.

    Args:
        num_stages (int): Stages of the whole backbone.
        out_indices (Sequence[int]): Stages whose maps are returned.
        frozen_stages (int): -1 for none; see the backbone.
        norm_eval (bool): Keep batch normalization in evaluation mode.
        init_cfg (dict | list[dict], optional): Initialization config. For
            ``dict(type='Pretrained', checkpoint=...)`` see
            ``mmattn.checkpoints.BackbonePretrained``.
    """

    def __init__(
        self,
        num_stages: int,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: InitCfg,
    ) -> None:
        super().__init__(init_cfg)
        valid = (
            isinstance(out_indices, Sequence)
            and len(out_indices) > 0
            and list(out_indices) == sorted(set(out_indices))
            and set(out_indices) <= set(range(num_stages))
        )
        if not valid:
            raise ValueError(
                f'{type(self).__name__} expects out_indices to be ascending '
                f'stage indices from 0 to {num_stages - 1}, such as '
                f'({num_stages - 1}, ), got {out_indices!r}'
            )
        if frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(
                f'{type(self).__name__} expects frozen_stages from -1 '
                f'(nothing) to {num_stages} (all stages), got {frozen_stages}'
            )
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def freeze(self) -> None:
        """Stop the gradients of frozen stages; the end of ``__init__``."""
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> 'BaseBackbone':
        """Set the mode, but leave frozen stages in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``, a pretrained checkpoint last."""
        cfgs = self.init_cfg or []
        cfgs = [cfgs] if isinstance(cfgs, dict) else cfgs
        pretrained = [cfg for cfg in cfgs if _is_pretrained(cfg)]
        others = [cfg for cfg in cfgs if not _is_pretrained(cfg)]
        if others or not pretrained or self.is_init:
            kept, fresh = self.init_cfg, not self.is_init
            self.init_cfg = others
            super().init_weights()
            self.init_cfg = kept
        else:
            # mmengine would log every parameter as left unchanged.
            self.is_init = fresh = True
        for cfg in pretrained if fresh else []:
            # Ours also reads published files, and never executes a pickle.
            initializer = WEIGHT_INITIALIZERS.get('BackbonePretrained')
            initializer(**{k: cfg[k] for k in cfg if k != 'type'})(self)

    def _frozen_modules(self) -> list[nn.Module]:
        """Modules that ``frozen_stages`` freezes."""
        raise NotImplementedError


def _is_pretrained(cfg: dict) -> bool:
    return cfg['type'] == 'Pretrained' or cfg['type'] is PretrainedInit


def init_linear(module: nn.Module) -> None:
    """Initialize a linear layer as transformers do, leave others alone."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
