"""Checks of arguments, inputs and checkpoints shared by attentions."""

import torch.nn as nn
from torch import Tensor


def check_heads(layer: nn.Module, embed_dims: int, num_heads: int) -> None:
    """Raise ValueError unless ``num_heads`` divides ``embed_dims``."""
    if num_heads < 1 or embed_dims % num_heads != 0:
        raise ValueError(
            f'{type(layer).__name__} expects num_heads to divide '
            f'embed_dims, got {embed_dims=}, {num_heads=}'
        )


def check_map(layer: nn.Module, x: Tensor, embed_dims: int) -> None:
    """Raise ValueError unless ``x`` is a map ``(B, H, W, embed_dims)``."""
    if x.ndim != 4 or x.shape[-1] != embed_dims:
        raise ValueError(
            f'{type(layer).__name__} expects a channels-last map '
            f'(B, H, W, {embed_dims}), got {tuple(x.shape)}'
        )


def rename_lepe(state_dict: dict, prefix: str) -> None:
    """Rename ``local_conv`` of older checkpoints to ``lepe``, in place."""
    for name in ('weight', 'bias'):
        if (old := f'{prefix}local_conv.{name}') in state_dict:
            state_dict[f'{prefix}lepe.{name}'] = state_dict.pop(old)
