"""Batch normalisation with fixed statistics, as part of what it follows."""

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, norm: _BatchNorm
) -> tuple[Tensor, Tensor]:
    """Let a convolution do what a norm in evaluation mode does behind it.

    Args:
        weight: Of the convolution, output channels first, ``(E, *)``.
        bias: Of the convolution, ``(E, )``; None for no bias.
        norm: The norm of its E output channels.

    Returns:
        The new weight and bias. Gradients flow to the old ones and to the
        parameters of the norm.
    """
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    weight = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    return weight, shift * factor + norm.bias
