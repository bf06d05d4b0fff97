"""Attention inside disjoint, possibly shifted windows of a map.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, M window side, N = M * M tokens of a window.
"""

from torch import Tensor

from ..attention import check_bias, check_qkv, default_scale
from ..dispatch import choose_implementation

# Schema of the implementations.
ARGUMENTS = (
    'Tensor qkv, int num_heads, int window_size, int shift, Tensor? bias, '
    'float scale'
)


def window_attention(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int = 0,
    bias: Tensor | None = None,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Let every token attend to the tokens of its window.

    Source: https://arxiv.org/abs/2103.14030, section 3.2. The map is rolled
    by ``-shift`` rows and columns and cut into windows. Tokens that the roll
    brings together from opposite ends of the map do not attend to each other.
    A map that is one window high or wide is not rolled.

    Args:
        qkv: Queries, keys and values side by side, ``(B, H, W, 3 * C)``, with
            H and W multiples of M.
        num_heads: Number of heads h.
        window_size: Window side M, in tokens.
        shift: Rows and columns to roll, from 0 to ``M - 1``. Defaults to 0.
        bias: Added to the scores, ``(h, N, N)``. Defaults to None, no bias.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'``, ``'cpp'``, ``'triton'``, another
            registered name, or ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(B, H, W, C)`` in the dtype of ``qkv``.

    Raises:
        ValueError: If the shapes do not fit or ``shift`` is out of range.
    """
    check_qkv('window_attention', qkv, num_heads)
    check_bias('window_attention', bias, num_heads, window_size**2)
    _, H, W, _ = qkv.shape
    if not 0 <= shift < window_size:
        raise ValueError(
            'window_attention expects 0 <= shift < window_size, got '
            f'{shift=}, {window_size=}'
        )
    if H % window_size or W % window_size:
        raise ValueError(
            f'window_attention: the map ({H} x {W}) must be divisible by '
            f'{window_size=}; pad it before the projection, with pad_map to '
            'padded_size'
        )
    if scale is None:
        scale = default_scale(qkv, num_heads)
    args = qkv, num_heads, window_size, shift, bias, scale
    return choose_implementation('window_attention', impl, *args)(*args)
