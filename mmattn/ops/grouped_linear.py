"""Matrices of groups of channels: convolutions of side 1 with groups.

Axes: B batch, H W rows and columns of the map, C input channels, E output
channels, g groups.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiling import compiles_for_sizes, is_compiling, narrowed
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .linear import linear
from .operators import define_operator


def grouped_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    with_gelu: bool = False,
    impl: str = 'auto',
) -> Tensor:
    """Multiply each group of channels by a matrix of its own.

    A convolution of side 1 with groups.

    Args:
        x: ``(B, H, W, C)``.
        weight: The matrices, ``(E, C / g)``.
        bias: ``(E, )``.
        num_groups: Groups g.
        with_gelu: Apply the GELU to the result. Defaults to False.
        impl: ``'reference'``, ``'dense'`` (one matrix, zero between the
            groups), another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

    Returns:
        ``(B, H, W, E)``.
    """
    args = (x, weight, bias, num_groups, with_gelu)
    row = choose_implementation('grouped_linear', impl, *args)
    if compiles_for_sizes(x) and not row.any_size:
        return _grouped_for_any_size(*narrowed(*args[:3]), *args[3:], impl)
    return row.function(*args)


def _empty_widened(x: Tensor, weight: Tensor, *args) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


_grouped_for_any_size = define_operator(
    'grouped_linear_for_any_size',
    'Tensor x, Tensor weight, Tensor bias, int num_groups, bool with_gelu, '
    'str impl',
    grouped_linear,
    _empty_widened,
)


@register_implementation('grouped_linear', 'reference')
def _grouped_reference(
    x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, with_gelu: bool
) -> Tensor:
    out = F.conv2d(
        x.permute(0, 3, 1, 2), weight[..., None, None], bias, groups=num_groups
    )
    out = out.permute(0, 2, 3, 1)
    return F.gelu(out) if with_gelu else out


def _refuse_dense(x: Tensor, weight: Tensor, *args) -> Reason:
    if is_compiling():
        return 'a compiler follows the definition'
    if x.device.type != 'cpu':
        return f'it runs on a CPU, got {x.device}'
    return None


@register_implementation(
    'grouped_linear',
    'dense',
    needs='a CPU, where groups of few channels are slower than none',
    priority=20,
    refuses=_refuse_dense,
)
def _dense(
    x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, with_gelu: bool
) -> Tensor:
    g = num_groups
    own = torch.eye(g, dtype=weight.dtype, device=weight.device)
    weight = weight.unflatten(0, (g, -1))[:, :, None]  # (g, E / g, 1, C / g)
    weight = (own[:, None, :, None] * weight).flatten(2).flatten(0, 1)
    return linear(x, weight, bias, with_gelu)
