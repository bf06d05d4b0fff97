"""A linear layer that takes the fastest implementation at hand."""

import torch.nn as nn
from torch import Tensor

from mmattn.ops import linear


class Linear(nn.Linear):
    """PyTorch's, by :func:`mmattn.ops.linear`, with a GELU if asked for.

    Args:
        in_features (int): Channels of the input.
        out_features (int): Channels of the output.
        bias (bool): Add a learned bias. Defaults to True.
        with_gelu (bool): Activate the result. Defaults to False.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        with_gelu: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.with_gelu = with_gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*, in_features)`` to ``(*, out_features)``."""
        return linear(x, self.weight, self.bias, self.with_gelu)

    def extra_repr(self) -> str:
        """Show in a printed model what its sub-modules do not."""
        return f'{super().extra_repr()}, with_gelu={self.with_gelu}'
