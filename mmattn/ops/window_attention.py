"""Attention inside disjoint, possibly shifted windows of a map.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, M window side, n windows, N = M * M tokens of a window.
"""

import torch
from torch import Tensor

from .attention import attention
from .compiling import sizes_vary
from .group_attention import NEEDS, refuse_groups
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .operators import define_operator
from .row_attention import RowGroups, row_attention
from .size_cache import cached_per_size
from .windows import (
    Size,
    merge_windows,
    needed_shift,
    pad_map,
    padded_size,
    shifted_window_bias,
    split_windows,
)


def window_attention(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int = 0,
    bias: Tensor | None = None,
    padding: Tensor | None = None,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Let every token attend to the tokens of its window.

    Source: https://arxiv.org/abs/2103.14030, section 3.2. The map is padded
    at the bottom and at the right to a multiple of the window, rolled by
    ``-shift`` rows and columns, cut into windows, attended with ``bias`` added
    to the scores, and put back. The padding takes part as keys; what was not
    adjacent before the roll does not attend to each other.

    Args:
        qkv: Queries, keys and values side by side, ``(B, H, W, 3 * C)``, each
            of ``h`` heads of ``d`` channels.
        num_heads: Number of heads h.
        window_size: Window side M, in tokens.
        shift: Rows and columns to roll, from 0 to ``M - 1``. See
            :func:`needed_shift`. Defaults to 0.
        bias: Per head and pair of tokens of a window, ``(h, N, N)``. Defaults
            to None, no bias.
        padding: Query, key and value of a padded place, ``(3 * C, )``.
            Defaults to None, zeros.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'`` (PyTorch's fused attention inside
            the windows), another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

    Returns:
        ``(B, H, W, C)`` in the dtype of ``qkv``.

    Raises:
        ValueError: If the channels are not three times a multiple of
            ``num_heads``, or ``shift`` does not lie in ``[0, M)``.
    """
    if qkv.ndim != 4 or num_heads < 1 or qkv.shape[-1] % (3 * num_heads) != 0:
        raise ValueError(
            'window_attention expects qkv (B, H, W, 3 * heads * '
            f'd), got {tuple(qkv.shape)} with {num_heads=}'
        )
    if not 0 <= shift < window_size:
        raise ValueError(
            'window_attention expects 0 <= shift < window_size, '
            f'got {shift=}, {window_size=}'
        )
    if scale is None:
        scale = (qkv.shape[-1] // (3 * num_heads)) ** -0.5
    args = (qkv, num_heads, window_size, shift, bias, padding, scale)
    row = choose_implementation('window_attention', impl, *args)
    if sizes_vary(qkv) and not row.any_size:
        return _for_any_size(*args, impl)
    if not row.any_size:
        shift = needed_shift(qkv.shape[1:3], window_size, shift)
        args = (qkv, num_heads, window_size, shift, bias, padding, scale)
    return row.function(*args)


_for_any_size = define_operator(
    'window_attention_for_any_size',
    'Tensor qkv, int num_heads, int window_size, int shift, Tensor? bias, '
    'Tensor? padding, float scale, str impl',
    window_attention,
)


@register_implementation('window_attention', 'reference')
def _reference(qkv: Tensor, *args) -> Tensor:
    return _in_windows(qkv, *args, impl='reference')


@register_implementation(
    'window_attention', 'sdpa', needs='torch.nn.functional', priority=10
)
def _sdpa(qkv: Tensor, *args) -> Tensor:
    return _in_windows(qkv, *args, impl='sdpa')


def _in_windows(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    padding: Tensor | None,
    scale: float,
    impl: str,
) -> Tensor:
    H, W = qkv.shape[1:3]
    window = (window_size, window_size)
    size = padded_size((H, W), window)
    qkv = pad_map(qkv, size, padding)
    if shift:
        qkv = qkv.roll((-shift, -shift), dims=(1, 2))
        apart = shifted_window_bias(size, window, (shift, shift), qkv.device)
        apart = apart[:, None]  # (n, 1, N, N)
        bias = apart if bias is None else bias + apart  # (n, h, N, N)
    qkv = split_windows(qkv, window).unflatten(-1, (3, num_heads, -1))
    q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, n, h, N, d)
    out = attention(q, k, v, bias, scale, impl)
    out = out.transpose(2, 3).flatten(-2)  # (B, n, N, C)
    out = merge_windows(out, window, size)
    if shift:
        out = out.roll((shift, shift), dims=(1, 2))
    return out[:, :H, :W]


def _refuse(qkv: Tensor, num_heads: int, window_size: int, *args) -> Reason:
    return refuse_groups(qkv, window_size**2)


@register_implementation(
    'window_attention', 'rows', needs=NEEDS, priority=20, refuses=_refuse
)
def _in_rows(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    padding: Tensor | None,
    scale: float,
) -> Tensor:
    H, W = qkv.shape[1:3]
    window = (window_size, window_size)
    size = padded_size((H, W), window)
    qkv = pad_map(qkv, size, padding)
    rows, slots = _window_rows(size, window, shift, num_heads, qkv.device)
    image = torch.arange(len(qkv), device=qkv.device, dtype=rows.dtype)
    image = slots.numel() * image[:, None]
    rows, slots = (image + x for x in (rows, slots))  # (B, n * h * N)
    shapes = [(rows.numel() // window_size**2, window_size**2)]
    rows, slots = rows.flatten(), slots.flatten()
    groups = RowGroups(num_heads, shapes, shapes, rows, rows, slots, slots)

    num_rows, num_columns = (side // window_size for side in size)

    def hide(scores: Tensor, start: int) -> None:
        # Only in the last row and column of windows do the ends meet.
        scores = scores.unflatten(0, (-1, num_columns, num_heads))
        below, beside = _meeting_ends(window_size, shift, scores.device)
        scores[:, -1].masked_fill_(beside, -torch.inf)
        first = start // (num_columns * num_heads)
        for i in range(num_rows - 1 - first % num_rows, len(scores), num_rows):
            scores[i].masked_fill_(below, -torch.inf)

    out = row_attention(
        qkv,
        groups,
        scale,
        bias,
        hide if shift else None,
        period=num_columns * num_heads,
    )
    return out[:, :H, :W]


@cached_per_size
def _window_rows(
    size: Size, window: Size, shift: int, num_heads: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which rows the slots of the windows stand for, in an image.

    Returns:
        The row of each slot, windows by heads by places, ``(n * h * N, )``;
        the slot of each row. See :class:`RowGroups`.
    """
    tokens = torch.arange(size[0] * size[1], device=device).view(1, *size, 1)
    tokens = tokens.roll((-shift, -shift), dims=(1, 2))
    tokens = split_windows(tokens, window)[0].mT  # (n, 1, N)
    heads = torch.arange(num_heads, device=device)[:, None]
    rows = (tokens * num_heads + heads).flatten()
    return rows.int(), rows.argsort().int()


@cached_per_size
def _meeting_ends(
    window_size: int, shift: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pairs of tokens that rolling brought together, ``(N, N)`` each.

    In the last row of windows, then in the last column.
    """
    wrapped = torch.arange(window_size, device=device) >= window_size - shift
    row, column = torch.meshgrid(wrapped, wrapped, indexing='ij')
    row, column = (side.flatten() for side in (row, column))
    return row[:, None] != row, column[:, None] != column
