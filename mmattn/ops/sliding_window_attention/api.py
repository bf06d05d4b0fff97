"""Attention inside square windows that slide over a map.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, M window side, N = M * M tokens of a window.
"""

from torch import Tensor

from ..attention import check_bias, check_qkv, default_scale
from ..dispatch import choose_implementation

# Schema of the implementations.
ARGUMENTS = (
    'Tensor qkv, int num_heads, int window_size, int stride, Tensor? bias, '
    'float scale'
)


def sliding_window_attention(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    stride: int,
    bias: Tensor | None = None,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Average the attention inside all windows that contain a token.

    Windows start at row and column 0, ``stride``, ``2 * stride``, ... until
    they reach the end of the map; their parts outside of the map are masked.
    With ``stride = window_size`` the windows are disjoint. The cost is
    ``O(H W M^2 (M / stride)^2)``.

    Args:
        qkv: Queries, keys and values side by side, ``(B, H, W, 3 * C)``.
        num_heads: Number of heads h.
        window_size: Window side M, in tokens.
        stride: Rows and columns from one window to the next, from 1 to M.
        bias: Added to the scores, ``(h, N, N)``. Defaults to None, no bias.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'``, ``'cpp'``, another registered name,
            or ``'auto'``. Defaults to ``'auto'``.

    Returns:
        ``(B, H, W, C)`` in the dtype of ``qkv``; averaged in float32 or
        wider.

    Raises:
        ValueError: If the shapes do not fit or ``stride`` is out of range.
    """
    check_qkv('sliding_window_attention', qkv, num_heads)
    check_bias('sliding_window_attention', bias, num_heads, window_size**2)
    if not 1 <= stride <= window_size:
        raise ValueError(
            'sliding_window_attention expects 1 <= stride <= window_size, '
            f'got {stride=}, {window_size=}'
        )
    if scale is None:
        scale = default_scale(qkv, num_heads)
    args = qkv, num_heads, window_size, stride, bias, scale
    function = choose_implementation('sliding_window_attention', impl, *args)
    return function(*args)
