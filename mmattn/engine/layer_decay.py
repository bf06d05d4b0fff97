"""Smaller learning rates for earlier layers, to fine-tune a backbone."""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmattn.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Multiply the learning rate by a factor for each layer below the last.

    The backbone says how deep a parameter lies (``get_layer_depth``), so any
    backbone of ours works, in models of mmdet, mmseg and mmpretrain alike::

        optim_wrapper = dict(
            constructor='mmattn.LayerDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            paramwise_cfg=dict(layer_decay_rate=0.7, norm_decay_mult=0.0))

    A parameter at depth ``k`` of ``n`` gets ``lr * rate ** (n - 1 - k)``:
    the stem the least, output norms and all that is not in the backbone (neck
    and heads) ``lr`` itself. Rates of ``custom_keys`` and the like are
    multiplied by the same factor.

    Args:
        optim_wrapper_cfg (dict): As for mmengine's default constructor.
        paramwise_cfg (dict): ``layer_decay_rate`` (float), the factor, above
            0 and at most 1, called as mmpretrain calls it; and all that the
            default constructor knows (``custom_keys``, ``norm_decay_mult``,
            ...).

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
                f'{type(self).__name__} expects layer_decay_rate above 0 and '
                f'at most 1 in paramwise_cfg, got {rate!r} in '
                f'{sorted(self.paramwise_cfg)}'
            )
        if self.base_lr is None:
            raise ValueError(
                f'{type(self).__name__} expects lr in the optimizer, got '
                f'{sorted(self.optimizer_cfg)}'
            )
        self.rate = rate

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a group for each parameter; called once for the whole model.

        Raises:
            TypeError: If the model has no backbone that tells depths.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # a part of the model, in the call above
            return
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise TypeError(
                f'{type(self).__name__} expects a model whose backbone has '
                f'get_layer_depth, got {type(module).__name__} with '
                f'{type(backbone).__name__}; take a backbone of mmattn, or '
                'another constructor'
            )
        depths = {
            parameter: backbone.get_layer_depth(name)
            for name, parameter in backbone.named_parameters()
        }
        for group in params:
            depth, count = depths.get(group['params'][0], (0, 1))
            factor = self.rate ** (count - 1 - depth)
            group['lr'] = group.get('lr', self.base_lr) * factor
