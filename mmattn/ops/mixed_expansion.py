"""What follows the convolutions at several scales: groups, widened.

Axes: B batch, H W rows and columns of the map, C = h * c channels, h heads,
c channels of a head, which are groups of h afterwards, e channels of a
widened group, s_i side of the kernels of head i.
"""

import functools
import logging
from collections.abc import Sequence

from torch import Tensor

from .compiling import asks_for_gradient, is_compiling
from .cpu_kernels import NEEDS, register_kernel
from .cpu_kernels.convolution import expand_heads, refuse_convolution
from .grouped_linear import grouped_linear
from .implementations import (
    Reason,
    choose_implementation,
    forced_name,
    list_implementations,
    register_implementation,
)
from .mixed_convolution import check_kernels, mixed_convolution

_LOGGER = logging.getLogger(__name__)


def mixed_expansion(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    matrices: Tensor,
    bias: Tensor,
    impl: str = 'auto',
) -> Tensor:
    """Convolve each head at its own scale, widen each group, activate.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3.1, multi-head
    mixed convolution and the scale-aware aggregation up to its activation,
    with the batch normalisation folded into the matrices. It is
    :func:`mixed_convolution`, then :func:`grouped_linear` with a GELU.

    Args:
        x: ``(B, H, W, C)``.
        weights: Kernels of each head, ``(c, 1, s_i, s_i)`` with odd ``s_i``.
        biases: Bias of each head, ``(c, )``.
        matrices: Of each group, one after the other, ``(c * e, h)``.
        bias: ``(c * e, )``.
        impl: ``'reference'``, ``'parts'`` (the two operations, each as
            ``'auto'`` chooses), ``'cpp'`` (one kernel, without gradients),
            another registered name, or ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(B, H, W, c * e)``.

    Raises:
        ValueError: If kernels or matrices do not fit the channels, or kernels
            have even sides.
    """
    check_kernels(x, weights, biases)
    _check(x, weights, matrices, bias)
    args = (x, weights, biases, matrices, bias)
    row = choose_implementation('mixed_expansion', impl, *args)
    return row.function(*args)


def _check(
    x: Tensor, weights: Sequence[Tensor], matrices: Tensor, bias: Tensor
) -> None:
    h = len(weights)
    c = max(x.shape[-1] // h, 1)
    fits = matrices.ndim == 2 and matrices.shape[1] == h
    if not fits or len(matrices) % c or bias.shape != matrices.shape[:1]:
        raise ValueError(
            'mixed_expansion expects for x (B, H, W, heads * c) matrices '
            '(c * e, heads) and a bias (c * e,), got '
            f'{tuple(x.shape)}, {tuple(matrices.shape)} and '
            f'{tuple(bias.shape)} with {len(weights)} heads'
        )


@register_implementation('mixed_expansion', 'reference')
def _reference(*args) -> Tensor:
    return _in_parts(*args, impl='reference')


@register_implementation(
    'mixed_expansion',
    'parts',
    needs='what mixed_convolution and grouped_linear take',
    priority=10,
)
def _parts(*args) -> Tensor:
    return _in_parts(*args, impl='auto')


def _in_parts(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    matrices: Tensor,
    bias: Tensor,
    impl: str,
) -> Tensor:
    scales = mixed_convolution(x, weights, biases, impl)  # (B, H, W, C)
    groups = x.shape[-1] // len(weights)
    return grouped_linear(scales, matrices, bias, groups, True, impl)


def _refuse(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *expansion: Tensor,
) -> Reason:
    parameters = (*weights, *biases, *expansion)
    if asks_for_gradient(x, *parameters):
        return 'it is for inference, got what asks for a gradient'
    return refuse_convolution(x, *parameters)


@register_kernel(
    'mixed_expansion',
    priority=30,
    refuses=_refuse,
    needs=f'{NEEDS}; no gradient',
)
def _cpp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    matrices: Tensor,
    bias: Tensor,
) -> Tensor:
    return expand_heads(x, weights, biases, matrices, bias)


def tell_of_parts() -> None:
    """Tell that a layer takes both parts, where the whole is forced.

    Nothing is told of parts that are forced to the same name, nor while a
    compiler looks on.

    Raises:
        RuntimeError: If what is forced cannot run on this machine.
    """
    name = forced_name('mixed_expansion')
    is_meant = name in ('auto', 'parts', forced_name('mixed_convolution'))
    if is_meant or is_compiling():
        return
    for row in list_implementations():
        if (row.operation, row.name) == ('mixed_expansion', name):
            reason = row.missing()
            if reason:
                raise RuntimeError(
                    f'mixed_expansion cannot run impl {name!r}: {reason}'
                )
    _warn_of_parts(name)


@functools.cache
def _warn_of_parts(name: str) -> None:
    _LOGGER.warning(
        'mixed_expansion is forced to %r, which takes effect in inference: '
        'where gradients are asked for, or batch normalisation takes its '
        'statistics of the batch, mixed_convolution and grouped_linear run '
        'instead, as chosen for themselves',
        name,
    )
