"""Batch normalisation with fixed statistics, as part of what it follows."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def has_fixed_statistics(norm: _BatchNorm) -> bool:
    """Whether a norm takes what it learned, not what the batch holds."""
    return not norm.training and norm.running_var is not None


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, norm: _BatchNorm
) -> tuple[Tensor, Tensor]:
    """Let a convolution do what a norm in evaluation mode does behind it.

    Args:
        weight: Of the convolution, output channels first, ``(E, *)``.
        bias: Of the convolution, ``(E, )``; None for no bias.
        norm: The norm of its E output channels, with fixed statistics, see
            :func:`has_fixed_statistics`.

    Returns:
        The new weight and bias, in the dtype of the weight. Gradients flow to
        the old ones and to the parameters of the norm.
    """
    # In float32 or wider, as the norm itself computes.
    wide = torch.promote_types(weight.dtype, torch.float32)
    factor = (norm.running_var.to(wide) + norm.eps).rsqrt()
    shift = -norm.running_mean.to(wide)
    if bias is not None:
        shift = shift + bias
    if norm.weight is not None:
        factor = factor * norm.weight
    shift = shift * factor
    if norm.bias is not None:
        shift = shift + norm.bias
    folded = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    return folded.to(weight.dtype), shift.to(weight.dtype)
