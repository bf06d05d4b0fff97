"""Attention inside square windows that slide over a map.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, M window side, r c windows along the rows and columns,
n = r * c windows, N = M * M tokens of a window.
"""

from functools import partial

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
from .windows import Size, pad_map


def sliding_window_attention(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    stride: int,
    bias: Tensor | None = None,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attend inside overlapping windows; a token takes the mean of its own.

    Windows begin at row and column 0, ``stride``, ``2 * stride``, ... until
    they reach the end of the map. What a window has outside of the map is not
    attended to. A token's result is the mean over the windows that hold it.
    With ``stride = window_size`` the windows are disjoint. The cost is
    ``O(H W M^2 (M / stride)^2)``.

    Args:
        qkv: Queries, keys and values side by side, ``(B, H, W, 3 * C)``, each
            of ``h`` heads of ``d`` channels.
        num_heads: Number of heads h.
        window_size: Window side M, in tokens.
        stride: Rows and columns from one window to the next, from 1 to M.
        bias: Per head and pair of tokens of a window, ``(h, N, N)``. Defaults
            to None, no bias.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'`` (PyTorch's fused attention inside
            the windows), another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

    Returns:
        ``(B, H, W, C)`` in the dtype of ``qkv``; the mean is taken in float32
        or wider.

    Raises:
        ValueError: If the channels are not three times a multiple of
            ``num_heads``, ``bias`` has another shape, or ``stride`` does not
            lie in ``[1, M]``.
    """
    if qkv.ndim != 4 or num_heads < 1 or qkv.shape[-1] % (3 * num_heads) != 0:
        raise ValueError(
            'sliding_window_attention expects qkv (B, H, W, 3 * heads * d), '
            f'got {tuple(qkv.shape)} with {num_heads=}'
        )
    if not 1 <= stride <= window_size:
        raise ValueError(
            'sliding_window_attention expects 1 <= stride <= window_size, '
            f'got {stride=}, {window_size=}'
        )
    N = window_size**2
    if bias is not None and bias.shape != (num_heads, N, N):
        raise ValueError(
            f'sliding_window_attention expects a bias ({num_heads}, {N}, {N}) '
            f'or None, got {tuple(bias.shape)}'
        )
    if scale is None:
        scale = (qkv.shape[-1] // (3 * num_heads)) ** -0.5
    args = (qkv, num_heads, window_size, stride, bias, scale)
    row = choose_implementation('sliding_window_attention', impl, *args)
    if sizes_vary(qkv) and not row.any_size:
        return _for_any_size(*args, impl)
    return row.function(*args)


_for_any_size = define_operator(
    'sliding_window_attention_for_any_size',
    'Tensor qkv, int num_heads, int window_size, int stride, Tensor? bias, '
    'float scale, str impl',
    sliding_window_attention,
)


@register_implementation('sliding_window_attention', 'reference')
def _reference(*args) -> Tensor:
    return _in_windows(*args, impl='reference')


@register_implementation(
    'sliding_window_attention',
    'sdpa',
    needs='torch.nn.functional',
    priority=10,
)
def _sdpa(*args) -> Tensor:
    return _in_windows(*args, impl='sdpa')


def _in_windows(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    stride: int,
    bias: Tensor | None,
    scale: float,
    impl: str,
) -> Tensor:
    B, H, W, _ = qkv.shape
    h, M = num_heads, window_size
    counts = tuple(_num_windows(side, M, stride) for side in (H, W))
    size = tuple((count - 1) * stride + M for count in counts)
    if size != (H, W):
        outside = _outside_bias((H, W), counts, M, stride, qkv.device)
        bias = outside if bias is None else bias + outside  # (n, h, N, N)
    qkv = pad_map(qkv, size).unfold(1, M, stride).unfold(2, M, stride)
    qkv = qkv.unflatten(3, (3, h, -1))  # (B, r, c, 3, h, d, M, M)
    qkv = qkv.permute(3, 0, 1, 2, 4, 6, 7, 5)  # (3, B, r, c, h, M, M, d)
    q, k, v = qkv.flatten(5, 6).flatten(2, 3)  # each (B, n, h, N, d)
    out = attention(q, k, v, bias, scale, impl)
    # Up to M^2 windows are summed: too many for half precision.
    wide = out.to(torch.promote_types(out.dtype, torch.float32))
    columns = wide.permute(0, 2, 4, 3, 1)  # (B, h, d, N, n)
    total = F.fold(
        columns.flatten(1, 3), size, M, stride=stride
    )  # (B, C, *size)
    shares = _shares(counts, M, stride, wide.dtype, qkv.device)
    mean = (total * shares)[..., :H, :W]
    return mean.permute(0, 2, 3, 1).to(out.dtype)


def _num_windows(length: int, window: int, stride: int) -> int:
    """How many windows it takes to reach the end of a side."""
    return max(0, -(-(length - window) // stride)) + 1


def _places(
    count: int, window: int, stride: int, device: torch.device
) -> Tensor:
    """Which rows, or columns, each of so many windows holds: ``(r, M)``."""
    begin = stride * torch.arange(count, device=device)
    return begin[:, None] + torch.arange(window, device=device)


@cached_per_size
def _outside_bias(
    size: Size, counts: Size, window: int, stride: int, device: torch.device
) -> Tensor:
    """Minus infinity for the keys outside of the map, ``(n, 1, 1, N)``."""
    rows, columns = (
        _places(count, window, stride, device) < side
        for side, count in zip(size, counts)
    )
    both = rows[:, None, :, None] & columns[None, :, None, :]  # (r, c, M, M)
    bias = torch.zeros(both.shape, device=device)
    bias = bias.masked_fill_(~both, -torch.inf)
    return bias.reshape(-1, 1, 1, window * window)


@cached_per_size
def _shares(
    counts: Size,
    window: int,
    stride: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """One over the number of windows that hold each place of a map."""
    held = []
    for count in counts:
        side = torch.zeros((count - 1) * stride + window, device=device)
        for begin in range(0, count * stride, stride):
            side[begin : begin + window] += 1
        held.append(side)
    return 1 / (held[0][:, None] * held[1]).to(dtype)


def _refuse(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    stride: int,
    bias: Tensor | None,
    *args,
) -> Reason:
    return refuse_cpp(qkv, bias)


@register_kernel('sliding_window_attention', priority=30, refuses=_refuse)
def _in_slots(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    stride: int,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    H, W = qkv.shape[1:3]
    qkv = qkv.contiguous()
    total = None
    rounds = _rounds((H, W), window_size, stride, qkv.device)
    for groups, left_out in rounds:
        # Nothing is written where no window is, neither of results nor of
        # gradients.
        own = qkv.view_as(qkv)
        if own.requires_grad:
            own.register_hook(partial(_without, tokens=left_out))
        out = attend_in_groups(own, num_heads, [groups], scale, bias=bias)
        out = _without(out, left_out)
        total = out if total is None else total.add_(out)
    if len(rounds) == 1:
        return total
    counts = tuple(_num_windows(side, window_size, stride) for side in (H, W))
    shares = _shares(counts, window_size, stride, qkv.dtype, qkv.device)
    return total * shares[:H, :W, None]


def _without(x: Tensor, tokens: Tensor) -> Tensor:
    """Zeros for some tokens of a map, given by their places in it."""
    if not len(tokens):
        return x
    return x.flatten(1, 2).index_fill(1, tokens, 0).view(x.shape)


@cached_per_size
def _rounds(
    size: Size, window: int, stride: int, device: torch.device
) -> list[tuple[SlotGroups, Tensor]]:
    """Windows that do not overlap, round after round until all had a turn.

    Returns:
        Of each round the windows, and the tokens that lie in none of them,
        int64.
    """
    H, W = size
    N = window**2
    apart = -(-window // stride)  # so many strides on, the next begins
    rows, columns = (
        _places(_num_windows(side, window, stride), window, stride, device)
        for side in size
    )
    rounds = []
    for i in range(min(apart, len(rows))):
        for j in range(min(apart, len(columns))):
            y = rows[i::apart, None, :, None]
            x = columns[None, j::apart, None, :]
            inside = (y < H) & (x < W)
            slots = torch.where(inside, y * W + x, -1).flatten()
            held = torch.zeros(H * W, dtype=torch.bool, device=device)
            held[slots[slots >= 0]] = True
            regions = None if inside.all() else (slots < 0).int()
            groups = SlotGroups(
                slots.int(),
                runs_of_slots(len(slots), N, device),
                N,
                N,
                regions=regions,
            )
            rounds.append((groups, (~held).nonzero().flatten()))
    return rounds
