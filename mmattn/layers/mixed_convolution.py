"""Depthwise convolutions at several scales: SMT."""

import re

import torch
import torch.nn as nn
from torch import Tensor

from mmattn.ops import mixed_convolution


class MixedConvolution(nn.Module):
    """A depthwise convolution with its own kernel size for each head.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3.1. The module
    owns the kernels of all heads, ``weight0``, ``bias0``, ``weight1``, ...,
    so that one operation can apply them.

    Args:
        embed_dims (int): Channels C of the input and of the output.
        kernel_sizes (Sequence[int]): Odd kernel side of each head. Their
            number must divide ``embed_dims``.
        impl (str): See ``mmattn.ops.list_implementations``. Defaults to
            ``'auto'``.
    """

    def __init__(
        self, embed_dims: int, kernel_sizes: list[int], impl: str = 'auto'
    ) -> None:
        super().__init__()
        self.kernel_sizes = tuple(kernel_sizes)
        self.impl = impl
        c = embed_dims // len(kernel_sizes)
        for i, side in enumerate(kernel_sizes):
            # The shapes and initial values of a depthwise nn.Conv2d.
            weight = torch.empty(c, 1, side, side).uniform_(-1, 1) / side
            bias = torch.empty(c).uniform_(-1, 1) / side
            self.register_parameter(f'weight{i}', nn.Parameter(weight))
            self.register_parameter(f'bias{i}', nn.Parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``, regrouped.

        Channel j of head i comes out as channel ``j * heads + i``.
        """
        heads = range(len(self.kernel_sizes))
        weights = [getattr(self, f'weight{i}') for i in heads]
        biases = [getattr(self, f'bias{i}') for i in heads]
        return mixed_convolution(x, weights, biases, self.impl)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args
    ) -> None:
        """Rename the keys of older checkpoints: ``0.weight``, ``0.bias``."""
        name = re.compile(re.escape(prefix) + r'(\d+)\.(weight|bias)')
        for key in list(state_dict):
            if old := name.fullmatch(key):
                state_dict[f'{prefix}{old[2]}{old[1]}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f'kernel_sizes={self.kernel_sizes}, impl={self.impl!r}'
