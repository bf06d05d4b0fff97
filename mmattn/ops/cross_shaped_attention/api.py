"""Attention inside the stripes of a map, two orientations side by side.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, s width of a stripe.
"""

from torch import Tensor

from ..attention import check_qkv, default_scale
from ..dispatch import choose_implementation

# Schema of the implementations.
ARGUMENTS = (
    'Tensor qkv, int num_heads, int? stripe_width, Tensor lepe_weight, '
    'Tensor? lepe_bias, float scale'
)


def cross_shaped_attention(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    lepe_weight: Tensor,
    lepe_bias: Tensor | None = None,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attend inside vertical and horizontal stripes, and add LePE.

    Source: CSWin, https://arxiv.org/abs/2107.00652, sections 3.2 and 3.3. The
    first half of the heads attends inside vertical stripes (H rows, s
    columns), the second inside horizontal ones (s rows, W columns). LePE, the
    locally-enhanced positional encoding, is a 3x3 depthwise convolution of
    the values inside each stripe, with zeros around it.

    A map that the stripes do not divide is padded evenly with zeros (the odd
    one at the bottom or right). Padding is attended to and convolved, as in
    the published backbone for dense prediction.

    Args:
        qkv: Queries, keys and values side by side, ``(B, H, W, 3 * C)``.
        num_heads: Number of heads h of both orientations, even.
        stripe_width: Columns or rows s of a stripe; with None all heads
            attend to the whole map, and their number may be odd.
        lepe_weight: Kernels of the convolution, ``(C, 1, 3, 3)``.
        lepe_bias: Its bias, ``(C, )``. Defaults to None, no bias.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'``, ``'cpp'``, ``'triton'``, another
            registered name, or ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(B, H, W, C)`` in the dtype of ``qkv``.

    Raises:
        ValueError: If the shapes do not fit, ``stripe_width`` is below 1, or
            ``num_heads`` is odd and there are stripes.
    """
    check_qkv('cross_shaped_attention', qkv, num_heads)
    C = qkv.shape[-1] // 3
    for name, x, shape in (
        ('lepe_weight', lepe_weight, (C, 1, 3, 3)),
        ('lepe_bias', lepe_bias, (C,)),
    ):
        if x is not None and x.shape != shape:
            raise ValueError(
                f'cross_shaped_attention expects {name} {shape}, got '
                f'{tuple(x.shape)}'
            )
    if stripe_width is not None and (stripe_width < 1 or num_heads % 2):
        raise ValueError(
            'cross_shaped_attention expects stripe_width >= 1 and an even '
            f'num_heads, got {stripe_width=}, {num_heads=}'
        )
    if scale is None:
        scale = default_scale(qkv, num_heads)
    args = qkv, num_heads, stripe_width, lepe_weight, lepe_bias, scale
    return choose_implementation('cross_shaped_attention', impl, *args)(*args)
