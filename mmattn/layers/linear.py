"""A linear layer that takes the fastest implementation at hand."""

import torch.nn as nn
from torch import Tensor

from mmattn.ops import linear


class Linear(nn.Linear):
    """PyTorch's, by :func:`mmattn.ops.linear`; for its arguments see there."""

    def forward(self, x: Tensor, with_gelu: bool = False) -> Tensor:
        """Map ``(*, in_features)`` to ``(*, out_features)``.

        With ``with_gelu``, the result is activated, in the same call where
        that is possible.
        """
        return linear(x, self.weight, self.bias, with_gelu)
