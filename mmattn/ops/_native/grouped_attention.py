"""Attention inside groups of tokens, by the kernels of ``attention.cpp``.

Axes: B images, T tokens of a map, C = h * d channels, h heads, d channels of
a head, P places, G groups, N queries and L keys of a group.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import KERNELS, contiguous

# What both kernels take last, see _common.
_COMMON = 'tiitiiiittitiidiiiiiii'
_ATTEND = KERNELS.function('attend', 'tt' + _COMMON)
_ATTEND_BACKWARD = KERNELS.function('attend_backward', 'ttttt' + _COMMON)

# A power of two takes a third of the time of one of e.
_LOG2_E = 1 / math.log(2)
# Rows of a bias are read by whole vectors: a multiple of theirs, in C++.
_VECTOR = 16


class Groups(NamedTuple):
    """Which tokens attend to which.

    The index map lays the tokens out in places. The queries and the keys of
    a group are ranges of places. Groups that share places are siblings: they
    follow each other.

    Attributes:
        index: Token in each place, or -1 for padding, int32, ``(P, )``, or
            ``(B, h, P)`` where images and heads differ.
        ranges: First place and the one after the last, of the queries and of
            the keys of each group, int32, ``(G, 4)``.
        most_tokens: Places of the most siblings together.
        most_keys: Keys of the largest group.
        siblings: Groups that share places. Defaults to 1.
        regions: Of each place, int32, ``(P, )``: keys of other regions are
            hidden from a query. Defaults to None, nothing is hidden.
        heads: First head that attends so, and how many do. Defaults to None,
            all.
        size: Rows and columns of a group, for the convolution of its values.
            Defaults to none.
    """

    index: Tensor
    ranges: Tensor
    most_tokens: int
    most_keys: int
    siblings: int = 1
    regions: Tensor | None = None
    heads: tuple[int, int] | None = None
    size: tuple[int, int] = (0, 0)


def equal_groups(num_places: int, size: int, device: torch.device) -> Tensor:
    """Ranges of groups of one size, each of which attends to itself."""
    ends = torch.arange(0, num_places + 1, size, device=device).int()
    return torch.stack((ends[:-1], ends[1:]) * 2, dim=1)


def attend(
    qkv: Tensor,
    num_heads: int,
    groups: Sequence[Groups],
    scale: float,
    bias: Tensor | None = None,
    weight: Tensor | None = None,
    weight_bias: Tensor | None = None,
    has_all_tokens: bool = True,
) -> Tensor:
    """Let every token attend to the keys of its group.

    Args:
        qkv: Queries, keys and values side by side, ``(B, *, 3 * C)``.
        num_heads: Heads h.
        groups: Who attends to whom, of some heads after others.
        scale: Factor of the products.
        bias: Added to the scores of each group, ``(h, N, L)``. Defaults to
            None, no bias.
        weight: Kernels of a depthwise convolution of the values inside each
            group, zeros around it, that is added to the result,
            ``(C, 1, 3, 3)``. Defaults to None, there is none.
        weight_bias: Its bias, ``(C, )``. Defaults to None, no bias.
        has_all_tokens: Whether the groups hold every token, of each head.
            Others get zeros. Defaults to True.

    Returns:
        ``(B, *, C)``.
    """
    qkv = contiguous(qkv)
    shape = *qkv.shape[:-1], qkv.shape[-1] // 3
    out = qkv.new_empty(shape) if has_all_tokens else qkv.new_zeros(shape)
    if out.numel():
        extras = _extras(bias, weight, weight_bias)
        for part in groups:
            _ATTEND(qkv, out, *_common(qkv, num_heads, part, extras, scale))
    return out


def attend_backward(
    grad: Tensor,
    wanted: Sequence[bool],
    qkv: Tensor,
    num_heads: int,
    groups: Sequence[Groups],
    scale: float,
    bias: Tensor | None = None,
    weight: Tensor | None = None,
    weight_bias: Tensor | None = None,
    has_all_tokens: bool = True,
) -> list[Tensor | None]:
    """Gradients of :func:`attend`.

    Args:
        grad: Of the result, contiguous.
        wanted: Which are needed, of ``qkv``, ``bias``, ``weight`` and
            ``weight_bias``. That of ``qkv`` is computed anyway.
        qkv, num_heads, groups, scale, bias, weight, weight_bias,
            has_all_tokens: As they were.

    Returns:
        As many gradients, None where none is needed.
    """
    qkv, extras = contiguous(qkv), _extras(bias, weight, weight_bias)
    with_bias, with_weight = wanted[1], wanted[2] or wanted[3]
    threads = torch.get_num_threads()
    # Each thread has sums of its own.
    of_bias = of_kernels = None
    if with_bias:
        of_bias = qkv.new_zeros(threads, *extras[0].shape)
    if with_weight:
        of_kernels = qkv.new_zeros(threads, *extras[1].shape)
    grad_qkv = (torch.empty_like if has_all_tokens else torch.zeros_like)(qkv)
    if grad.numel():
        for part in groups:
            common = _common(qkv, num_heads, part, extras, scale)
            _ATTEND_BACKWARD(qkv, grad, grad_qkv, of_bias, of_kernels, *common)
    grads: list[Tensor | None] = [grad_qkv, None, None, None]
    if with_bias:
        grads[1] = of_bias.sum(0)[..., : bias.shape[-1]].contiguous()
    if with_weight:
        of_kernels = of_kernels.sum(0)
        grads[2] = of_kernels[:9].t().reshape(weight.shape)
        grads[3] = of_kernels[9].clone()
    return [x if want else None for x, want in zip(grads, wanted)]


def _extras(
    bias: Tensor | None, weight: Tensor | None, weight_bias: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Bias and convolution, as the kernels read them."""
    kernels = None
    if bias is not None:
        bias = F.pad(bias * _LOG2_E, (0, -bias.shape[-1] % _VECTOR))
        bias = bias.contiguous()
    if weight is not None:
        taps = weight.flatten(1).t()
        if weight_bias is None:
            weight_bias = weight.new_zeros(len(weight))
        kernels = torch.cat((taps, weight_bias[None])).contiguous()
    return bias, kernels


def _common(
    qkv: Tensor,
    num_heads: int,
    groups: Groups,
    extras: tuple[Tensor | None, Tensor | None],
    scale: float,
) -> tuple:
    """What both kernels take, see ``attention.cpp``."""
    bias, kernels = extras
    images, channels = qkv.shape[0], qkv.shape[-1]
    return (
        groups.index,
        *(groups.index.stride()[:-1] or (0, 0)),
        groups.ranges,
        len(groups.ranges),
        groups.siblings,
        groups.most_tokens,
        groups.most_keys,
        groups.regions,
        bias,
        0 if bias is None else bias.shape[-1],
        kernels,
        *groups.size,
        scale,
        images,
        qkv.numel() // (images * channels),
        num_heads,
        channels // (3 * num_heads),
        *(groups.heads or (0, num_heads)),
        torch.get_num_threads(),
    )
