"""Whether a call of a module runs the code of its class and nothing else."""

import torch.nn as nn
from torch import Tensor


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether ``module`` is exactly of ``kind``, with nothing attached to it.

    False for subclasses, adapters, hooks (pruning and weight norm are hooks),
    parametrizations, a ``forward`` of its own, parameters of a subclass, and
    a GELU that is not the exact one.
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
