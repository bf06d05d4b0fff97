"""Attention inside disjoint, possibly shifted windows of a map.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, M window side, n windows, N = M * M tokens of a window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention
from .compiling import sizes_vary
from .cpu_kernels import refuse_cpp, register_kernel
from .cpu_kernels.attention import (
    SlotGroups,
    attend_in_groups,
    runs_of_slots,
)
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
)
from .operators import define_operator
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
            ``num_heads``, ``bias`` or ``padding`` has another shape, or
            ``shift`` does not lie in ``[0, M)``.
    """
    if qkv.ndim != 4 or num_heads < 1 or qkv.shape[-1] % (3 * num_heads) != 0:
        raise ValueError(
            'window_attention expects qkv (B, H, W, 3 * heads * '
            f'd), got {tuple(qkv.shape)} with {num_heads=}'
        )
    N, C = window_size**2, qkv.shape[-1] // 3
    shapes = [None if x is None else tuple(x.shape) for x in (bias, padding)]
    if (
        bias is not None
        and shapes[0] != (num_heads, N, N)
        or (padding is not None and shapes[1] != (3 * C,))
    ):
        raise ValueError(
            f'window_attention expects a bias ({num_heads}, {N}, {N}) and a '
            f'padding ({3 * C},), or None, got {shapes[0]} and {shapes[1]}'
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


def _refuse(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    padding: Tensor | None,
    *args,
) -> Reason:
    return refuse_cpp(qkv, bias, padding)


@register_kernel('window_attention', priority=30, refuses=_refuse)
def _in_slots(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    padding: Tensor | None,
    scale: float,
) -> Tensor:
    groups = _window_slots(
        tuple(qkv.shape[1:3]), window_size, shift, qkv.device
    )
    return attend_in_groups(qkv, num_heads, [groups], scale, padding, bias)


@cached_per_size
def _window_slots(
    size: Size, window_size: int, shift: int, device: torch.device
) -> SlotGroups:
    window, N = (window_size, window_size), window_size**2
    H, W = padded_size(size, window)
    tokens = torch.arange(size[0] * size[1], device=device).view(1, *size, 1)
    bottom, right = H - size[0], W - size[1]
    tokens = F.pad(tokens, (0, 0, 0, right, 0, bottom), value=-1)
    tokens = tokens.roll((-shift, -shift), dims=(1, 2))
    slots = split_windows(tokens, window).flatten().int()
    ranges = runs_of_slots(H * W, N, device)
    regions = None
    if shift:
        # Rolling brings the ends of the map together.
        rows, columns = (
            torch.arange(side, device=device) >= side - shift
            for side in (H, W)
        )
        regions = 2 * rows[:, None].int() + columns.int()
        regions = split_windows(regions[None, ..., None], window)
        regions = regions.flatten().contiguous()
    return SlotGroups(slots, ranges, N, N, regions=regions)
