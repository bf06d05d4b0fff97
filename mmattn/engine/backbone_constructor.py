"""Optimizer constructor that exempts parts of backbones from weight decay."""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.nn import GroupNorm, LayerNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from mmattn.backbones.base import BaseBackbone
from mmattn.registry import OPTIM_WRAPPER_CONSTRUCTORS

_NORMS = (_BatchNorm, _InstanceNorm, GroupNorm, LayerNorm)
_TABLE = 'relative_position_bias_table'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, without decay of norms and position tables.

    The options of ``paramwise_cfg`` are applied to the whole model first.
    Then the weight decay of the norms and relative-position tables of all
    mmattn backbones in the model is set to 0, also in ``detector.backbone``
    and ``student.backbone``. Nothing else changes::

        optim_wrapper = dict(
            constructor='mmattn.BackboneOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))

    ``custom_keys`` alone cannot express this: of the keys in the name of a
    parameter mmengine uses the longest, so ``backbone`` overrides ``norm``,
    and ``norm`` matches the norms of heads as well.

    Args:
        optim_wrapper_cfg (dict): Config of the optimizer wrapper.
        paramwise_cfg (dict, optional): Options of mmengine's default
            constructor. Defaults to None.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        # Without options mmengine does not call add_params, and parameters of
        # shared modules are no error.
        options = paramwise_cfg or dict(bypass_duplicate=True)
        super().__init__(optim_wrapper_cfg, options)

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a group for each trainable parameter of a module."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # the recursion of the call above
            return
        undecayed = {
            parameter
            for backbone in find_backbones(module)
            for parameter in undecayed_parameters(backbone)
        }
        for group in params:
            if group['params'][0] in undecayed:
                group['weight_decay'] = 0.0


def find_backbones(model: nn.Module) -> list[BaseBackbone]:
    """Return all mmattn backbones in a model."""
    return [m for m in model.modules() if isinstance(m, BaseBackbone)]


def undecayed_parameters(backbone: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of norms and the relative-position tables."""
    return [
        parameter
        for module in backbone.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, _NORMS) or name == _TABLE
    ]
