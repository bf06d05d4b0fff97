"""Sliding-window attention in C++: no window is copied.

A round attends inside windows that do not overlap; rounds are added up.
"""

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .. import _native
from .._native.grouped_attention import (
    Groups,
    Plan,
    attend,
    attend_backward,
    equal_groups,
)
from ..size_cache import cached_per_size
from ..windows import Size
from .api import ARGUMENTS
from .places import window_counts, window_places, window_shares


def why_not(qkv: Tensor, *args) -> str | None:
    return _native.why_not(qkv, args[3])  # the bias


def plans(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    stride: int,
    bias: Tensor | None,
    scale: float,
) -> Iterator[Plan]:
    """Arguments of the grouped attention, of each round."""
    rounds = _rounds(qkv.shape[1:3], window_size, stride, qkv.device)
    for groups, is_complete in rounds:
        yield Plan(
            qkv,
            num_heads,
            [groups],
            scale,
            bias,
            has_all_tokens=is_complete,
        )


def forward(qkv: Tensor, *args) -> list[Tensor]:
    rounds = map(attend, plans(_native.contiguous(qkv), *args))
    return [functools.reduce(Tensor.add_, rounds) * _shares(qkv, *args)]


def backward(
    grad: Tensor,
    kept: Sequence[Tensor],
    wanted: Sequence[bool],
    qkv: Tensor,
    *args,
) -> list[Tensor | None]:
    grad = grad * _shares(qkv, *args)
    names = ['qkv', 'bias'] if wanted[1] else ['qkv']
    totals: dict[str, Tensor] = {}
    for plan in plans(_native.contiguous(qkv), *args):
        for name, x in attend_backward(grad, names, plan).items():
            totals[name] = totals[name].add_(x) if name in totals else x
    return [totals['qkv'], totals.get('bias')]


def _shares(
    qkv: Tensor, num_heads: int, window_size: int, stride: int, *args
) -> Tensor:
    """One over the number of windows of each token, ``(H, W, 1)``."""
    size = H, W = qkv.shape[1:3]
    counts = window_counts(size, window_size, stride)
    shares = window_shares(counts, window_size, stride, qkv.dtype, qkv.device)
    return shares[:H, :W, None]


@cached_per_size
def _rounds(
    size: Size, window: int, stride: int, device: torch.device
) -> list[tuple[Groups, bool]]:
    """Windows that do not overlap, and whether they contain all tokens."""
    H, W = size
    N = window**2
    apart = -(-window // stride)  # strides between windows of a round
    counts = window_counts(size, window, stride)
    rows, columns = (
        window_places(count, window, stride, device) for count in counts
    )
    rounds = []
    for i in range(min(apart, len(rows))):
        for j in range(min(apart, len(columns))):
            y = rows[i::apart, None, :, None]
            x = columns[None, j::apart, None, :]
            inside = (y < H) & (x < W)
            index = torch.where(inside, y * W + x, -1).flatten().int()
            groups = Groups(
                index,
                equal_groups(len(index), N, device),
                N,
                N,
                regions=None if inside.all() else (index < 0).int(),
            )
            rounds.append((groups, bool(inside.sum() == H * W)))
    return rounds


_native.register_kernel(
    'sliding_window_attention', ARGUMENTS, forward, backward, why_not
)
