"""A linear layer that takes the fastest implementation at hand."""

import torch.nn as nn
from torch import Tensor
from torch.nn.modules import module

from mmattn.ops import linear

# Registered for all modules; the dictionaries stay the same ones.
_GLOBAL_HOOKS = (
    module._global_forward_pre_hooks,
    module._global_forward_hooks,
    module._global_backward_pre_hooks,
    module._global_backward_hooks,
)


class Linear(nn.Linear):
    """PyTorch's, by :func:`mmattn.ops.linear`; for its arguments see there."""

    def forward(self, x: Tensor, with_gelu: bool = False) -> Tensor:
        """Map ``(*, in_features)`` to ``(*, out_features)``.

        With ``with_gelu``, the result is activated, in the same call where
        that is possible.
        """
        return linear(x, self.weight, self.bias, with_gelu)

    @property
    def is_plain(self) -> bool:
        """Whether a call would do nothing but multiply by these weights.

        So that others may take the weights and leave out the call.
        """
        hooked = (
            self._forward_hooks
            or self._forward_pre_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
            or any(_GLOBAL_HOOKS)
        )
        return type(self) is Linear and not hooked
