"""A linear layer that takes the fastest implementation at hand."""

import torch.nn as nn
from torch import Tensor
from torch.nn.modules.module import _has_any_global_hook

from mmattn.ops import linear


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
            or _has_any_global_hook()
        )
        return type(self) is Linear and not hooked
