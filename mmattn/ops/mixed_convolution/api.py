"""Depthwise convolution with another kernel size for each head.

Axes: B batch, H W rows and columns of the map, C = h * c channels, h heads,
c channels of a head, s_i side of the kernels of head i.
"""

from collections.abc import Sequence

from torch import Tensor

from ..dispatch import choose_implementation


def mixed_convolution(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    impl: str = 'auto',
) -> Tensor:
    """Convolve each head at its own scale and interleave the heads.

    Source: SMT, https://arxiv.org/abs/2307.08579, section 3.1, multi-head
    mixed convolution and the regrouping of the scale-aware aggregation. Head
    i is a depthwise convolution with its own kernels and zero padding.
    Channel j of head i becomes channel ``j * h + i``: each group of ``h``
    channels contains every scale once.

    Args:
        x: ``(B, H, W, C)``.
        weights: Kernels of each head, ``(c, 1, s_i, s_i)`` with odd ``s_i``.
        biases: Bias of each head, ``(c, )``.
        impl: ``'reference'`` (also called ``'sdpa'``), ``'cpp'``,
            ``'triton'``, another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

    Returns:
        ``(B, H, W, C)``, interleaved.

    Raises:
        ValueError: If the kernels do not fit the channels or have even sides.
    """
    c = x.shape[-1] // max(len(weights), 1)
    fits = x.ndim == 4 and c * len(weights) == x.shape[-1]
    fits = fits and [tuple(b.shape) for b in biases] == [(c,)] * len(weights)
    for w in weights:
        side = w.shape[-1]
        fits = fits and tuple(w.shape) == (c, 1, side, side) and side % 2
    if not fits:
        raise ValueError(
            'mixed_convolution expects x (B, H, W, heads * c) and for each '
            'head kernels (c, 1, s, s) of odd s and a bias (c,), got '
            f'{tuple(x.shape)}, {[tuple(w.shape) for w in weights]} and '
            f'{[tuple(b.shape) for b in biases]}'
        )
    args = x, weights, biases
    return choose_implementation('mixed_convolution', impl, *args)(*args)
