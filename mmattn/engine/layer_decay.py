"""Smaller learning rates for earlier layers, to fine-tune a backbone."""

from torch import nn

from mmattn.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .backbone_constructor import (
    BackboneOptimWrapperConstructor,
    find_backbones,
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(BackboneOptimWrapperConstructor):
    """Multiply the learning rate by a factor for each layer below the last.

    The depth of a parameter comes from ``get_layer_depth`` of its backbone,
    so all mmattn backbones are supported, in models of mmdet, mmseg and
    mmpretrain alike::

        optim_wrapper = dict(
            constructor='mmattn.LayerDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            paramwise_cfg=dict(layer_decay_rate=0.7))

    A parameter at depth ``k`` of ``n`` gets ``lr * rate ** (n - 1 - k)``: the
    stem gets the smallest learning rate; output norms, necks and heads get
    ``lr``. Learning rates of ``custom_keys`` are multiplied by the same
    factor. Norms and relative-position tables of mmattn backbones do not
    decay.

    Args:
        optim_wrapper_cfg (dict): Config of the optimizer wrapper.
        paramwise_cfg (dict, optional): ``layer_decay_rate`` (float), the
            factor, above 0 and at most 1, named as in mmpretrain; and the
            options of mmengine's default constructor.

    Raises:
        ValueError: If the factor is missing or out of range, or if the
            optimizer has no ``lr``.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(
                f'layer_decay_rate ({rate!r}) must be above 0 and at most 1; '
                f'set it in paramwise_cfg of {type(self).__name__}'
            )
        if self.base_lr is None:
            raise ValueError(
                f'{type(self).__name__} needs lr in the optimizer config, '
                f'which has {sorted(self.optimizer_cfg)}'
            )
        self.rate = rate

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a group for each trainable parameter of a module.

        Raises:
            TypeError: If the model has no backbone with ``get_layer_depth``.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # the recursion of the call above
            return
        backbones = find_backbones(module)
        if not backbones:  # of another package, such as mmpretrain
            backbone = getattr(module, 'backbone', None)
            if not hasattr(backbone, 'get_layer_depth'):
                raise TypeError(
                    f'{type(self).__name__} needs a backbone with '
                    f'get_layer_depth, but {type(module).__name__} has '
                    f'{type(backbone).__name__}; use an mmattn backbone or '
                    'another constructor'
                )
            backbones = [backbone]
        depths = {
            parameter: backbone.get_layer_depth(name)
            for backbone in backbones
            for name, parameter in backbone.named_parameters()
        }
        for group in params:
            depth, count = depths.get(group['params'][0], (0, 1))
            factor = self.rate ** (count - 1 - depth)
            group['lr'] = group.get('lr', self.base_lr) * factor
