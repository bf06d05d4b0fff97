"""Split a map into sliding windows and average them.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, M window side, r c windows along the rows and columns,
n = r * c windows, N = M * M tokens of a window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..size_cache import cached_per_size
from ..windows import Size, pad_map


def window_counts(size: Size, window: int, stride: int) -> Size:
    """Number of windows along the rows and columns."""
    rows, columns = (
        max(0, -(-(side - window) // stride)) + 1 for side in size
    )
    return rows, columns


def window_places(
    count: int, window: int, stride: int, device: torch.device
) -> Tensor:
    """Rows, or columns, of each of ``count`` windows: ``(r, M)``."""
    begin = stride * torch.arange(count, device=device)
    return begin[:, None] + torch.arange(window, device=device)


@cached_per_size
def outside_bias(
    size: Size, window: int, stride: int, device: torch.device
) -> Tensor:
    """Minus infinity for the keys outside of the map, ``(n, 1, 1, N)``."""
    rows, columns = (
        window_places(count, window, stride, device) < side
        for side, count in zip(size, window_counts(size, window, stride))
    )
    both = rows[:, None, :, None] & columns[None, :, None, :]  # (r, c, M, M)
    bias = torch.zeros(both.shape, device=device)
    bias = bias.masked_fill(~both, -torch.inf)
    return bias.reshape(-1, 1, 1, window * window)


@cached_per_size
def window_shares(
    counts: Size,
    window: int,
    stride: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """One over the number of windows of each token of the padded map."""
    held = []
    for count in counts:
        side = torch.zeros((count - 1) * stride + window, device=device)
        for begin in range(0, count * stride, stride):
            side[begin : begin + window] += 1
        held.append(side)
    return 1 / (held[0][:, None] * held[1]).to(dtype)


def cut_windows(
    qkv: Tensor,
    num_heads: int,
    window: int,
    stride: int,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Queries, keys and values ``(B, n, h, N, d)`` of all windows, and a bias.

    The bias is ``(h, N, N)`` or ``(n, h or 1, N or 1, N)`` and masks tokens
    outside of the map.
    """
    size = qkv.shape[1:3]
    counts = window_counts(size, window, stride)
    padded = tuple((count - 1) * stride + window for count in counts)
    if padded != tuple(size):
        outside = outside_bias(size, window, stride, qkv.device)
        bias = outside if bias is None else bias + outside  # (n, h, N, N)
    qkv = pad_map(qkv, padded).unfold(1, window, stride)
    qkv = qkv.unfold(2, window, stride)
    qkv = qkv.unflatten(3, (3, num_heads, -1))  # (B, r, c, 3, h, d, M, M)
    qkv = qkv.permute(3, 0, 1, 2, 4, 6, 7, 5)  # (3, B, r, c, h, M, M, d)
    q, k, v = qkv.flatten(5, 6).flatten(2, 3)
    return q, k, v, bias


def average_windows(
    out: Tensor, size: Size, window: int, stride: int
) -> Tensor:
    """Mean ``(B, H, W, C)`` over windows ``(B, n, h, N, d)`` at each token."""
    H, W = size
    counts = window_counts(size, window, stride)
    padded = tuple((count - 1) * stride + window for count in counts)
    # Up to M^2 windows are summed: too many for half precision.
    wide = out.to(torch.promote_types(out.dtype, torch.float32))
    columns = wide.permute(0, 2, 4, 3, 1).flatten(1, 3)  # (B, h * d * N, n)
    total = F.fold(columns, padded, window, stride=stride)  # (B, C, *padded)
    shares = window_shares(counts, window, stride, wide.dtype, out.device)
    mean = (total * shares)[..., :H, :W]
    return mean.permute(0, 2, 3, 1).to(out.dtype)
