"""Fold batch normalization into the convolutions before it."""

import copy
from collections.abc import Collection

import torch.nn as nn
from mmcv.cnn import ConvModule
from torch import Tensor

from mmattn.layers import ConvStem


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor]:
    """Weight ``(E, *)`` and bias ``(E,)`` of a layer and the norm after it.

    The norm uses its running statistics.
    """
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double()
    if bias is not None:
        shift = shift + bias
    if norm.weight is not None:
        factor = factor * norm.weight
    shift = shift * factor
    if norm.bias is not None:
        shift = shift + norm.bias
    folded = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    return folded.to(weight.dtype), shift.to(weight.dtype)


def fold_children(module: nn.Module, fixed: Collection[nn.Module]) -> int:
    """Fold norms in ``module`` into the convolutions before; return how many.

    Identities replace the norms. Modules in ``fixed`` do not change.
    """
    pairs = [
        (conv, norm)
        for conv, norm in _consecutive(module)
        if module._modules[conv] not in fixed
        and module._modules[norm] not in fixed
        and _can_fold(module._modules[conv], module._modules[norm])
    ]
    for conv_name, norm_name in pairs:
        conv, norm = module._modules[conv_name], module._modules[norm_name]
        weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
        conv = copy.deepcopy(conv)  # another module may share it
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = nn.Parameter(bias, requires_grad=False)
        module._modules[conv_name] = conv
        module._modules[norm_name] = nn.Identity()
    return len(pairs)


def _consecutive(module: nn.Module) -> list[tuple[str, str]]:
    """Names of children that are called one after the other."""
    if type(module) is ConvStem:
        return [('conv', 'batch_norm')]
    if type(module) is ConvModule:
        is_standard = module.order[:2] == ('conv', 'norm') and not getattr(
            module, 'efficient_conv_bn_eval_forward', None
        )
        if module.with_norm and is_standard:
            return [('conv', module.norm_name)]
    if type(module) is nn.Sequential:
        names = list(module._modules)
        return list(zip(names, names[1:]))
    return []


def _can_fold(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        is_plain(conv, nn.Conv2d)
        and is_plain(norm, nn.BatchNorm2d)
        and norm.running_var is not None
        and not norm.training
        and norm.num_features == conv.out_channels
    )


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of ``module`` runs the code of ``kind`` and nothing else.

    False for subclasses, adapters, hooks (also of pruning and weight norm),
    parametrizations, a replaced ``forward``, parameters of a subclass, and
    approximate GELUs.
    """
    return (
        type(module) is kind
        and 'forward' not in vars(module)
        and not (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
        )
        and all(
            type(x) in (nn.Parameter, Tensor)
            for x in (*module._parameters.values(), *module._buffers.values())
            if x is not None
        )
        and getattr(module, 'approximate', 'none') == 'none'
    )
