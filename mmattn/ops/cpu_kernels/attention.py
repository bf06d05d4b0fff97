"""Attention inside groups of tokens, by the kernels of ``attention.cpp``.

Axes: B images, T tokens of a map, C = h * d channels, h heads, d channels of
a head, S slots, G groups, N queries and L keys of a group.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..compiling import refuse_create_graph
from .library import call, plain

# A power of two takes a third of the time of one of e.
_LOG2_E = 1 / math.log(2)
# Rows of a bias are read by whole vectors: a multiple of theirs, in C++.
_VECTOR = 16


class SlotGroups(NamedTuple):
    """Which tokens attend to which.

    A slot stands for a token of the map, or for one of the padding around
    it. The queries and the keys of a group are runs of slots. Groups that
    share slots follow each other, and make up a family.

    Attributes:
        slots: Token of each slot or -1, int32, ``(S, )``, or ``(B, h, S)``
            where images and heads differ.
        ranges: First slot and the one after the last, of the queries and of
            the keys of each group, int32, ``(G, 4)``.
        most_tokens: Slots of the largest family.
        most_keys: Keys of the largest group.
        siblings: Groups of a family. Defaults to 1.
        regions: Of each slot, int32, ``(S, )``: tokens of other regions are
            hidden from a query. Defaults to None, nothing is hidden.
        heads: First head that attends so, and how many do. Defaults to None,
            all.
        size: Rows and columns of a group, for the convolution of its values.
            Defaults to none.
    """

    slots: Tensor
    ranges: Tensor
    most_tokens: int
    most_keys: int
    siblings: int = 1
    regions: Tensor | None = None
    heads: tuple[int, int] | None = None
    size: tuple[int, int] = (0, 0)


def runs_of_slots(num_slots: int, size: int, device: torch.device) -> Tensor:
    """Ranges of groups of one size, each of which attends to itself."""
    ends = torch.arange(0, num_slots + 1, size, device=device).int()
    return torch.stack((ends[:-1], ends[1:]) * 2, dim=1)


def attend_in_groups(
    qkv: Tensor,
    num_heads: int,
    groups: Sequence[SlotGroups],
    scale: float,
    padding: Tensor | None = None,
    bias: Tensor | None = None,
    weight: Tensor | None = None,
    local_bias: Tensor | None = None,
) -> Tensor:
    """Let every token attend to the keys of its group.

    Args:
        qkv: Queries, keys and values side by side, ``(B, *, 3 * C)``.
        num_heads: Heads h.
        groups: Who attends to whom, of some heads after others.
        scale: Factor of the products.
        padding: Query, key and value of a slot that stands for no token,
            ``(3 * C, )``. Defaults to None, zeros.
        bias: Added to the scores of each group, ``(h, N, L)``. Defaults to
            None, no bias.
        weight: Kernels of a depthwise convolution of the values inside each
            group, zeros around it, that is added to the result,
            ``(C, 1, 3, 3)``. Defaults to None, there is none.
        local_bias: Its bias, ``(C, )``. Defaults to None, no bias.

    Returns:
        ``(B, *, C)``. Its gradients have no gradients themselves: a backward
        pass with ``create_graph`` raises a ``RuntimeError``.
    """
    return _Attention.apply(
        qkv, padding, bias, weight, local_bias, num_heads, groups, scale
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        qkv: Tensor,
        padding: Tensor | None,
        bias: Tensor | None,
        weight: Tensor | None,
        local_bias: Tensor | None,
        num_heads: int,
        groups: Sequence[SlotGroups],
        scale: float,
    ) -> Tensor:
        qkv = qkv.contiguous()
        out = qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)
        extras = _extras(padding, bias, weight, local_bias)
        threads = torch.get_num_threads()
        if out.numel():
            for part in groups:
                common = _common(qkv, num_heads, part, extras, scale, threads)
                call('attend', qkv, out, *common)
        ctx.save_for_backward(qkv, padding, bias, weight, local_bias)
        ctx.num_heads, ctx.groups, ctx.scale = num_heads, groups, scale
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_create_graph('cpp')
        qkv, padding, bias, weight, local_bias = ctx.saved_tensors
        extras = _extras(padding, bias, weight, local_bias)
        wanted = ctx.needs_input_grad
        threads, C = torch.get_num_threads(), grad.shape[-1]
        # Each thread has sums of its own.
        of_padding = of_bias = of_kernels = None
        if wanted[1]:
            of_padding = qkv.new_zeros(threads, 3 * C)
        if wanted[2]:
            of_bias = qkv.new_zeros(threads, *extras[1].shape)
        if wanted[3] or wanted[4]:
            of_kernels = qkv.new_zeros(threads, 10, C)
        grad, grad_qkv = plain(grad), torch.empty_like(qkv)
        if grad.numel():
            for part in ctx.groups:
                common = _common(
                    qkv, ctx.num_heads, part, extras, ctx.scale, threads
                )
                call(
                    'attend_gradients',
                    qkv,
                    grad,
                    grad_qkv,
                    of_padding,
                    of_bias,
                    of_kernels,
                    *common,
                )
        grads = [grad_qkv, None, None, None, None]
        if wanted[1]:
            grads[1] = of_padding.sum(0)
        if wanted[2]:
            grads[2] = of_bias.sum(0)[..., : bias.shape[-1]]
        if wanted[3] or wanted[4]:
            of_kernels = of_kernels.sum(0)
            grads[3] = of_kernels[:9].t().reshape(weight.shape)
            grads[4] = of_kernels[9] if wanted[4] else None
        return *grads, None, None, None


def _extras(
    padding: Tensor | None,
    bias: Tensor | None,
    weight: Tensor | None,
    local_bias: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Padding, bias and kernels, as the kernels of C++ read them."""
    kernels = None
    if bias is not None:
        bias = F.pad(bias * _LOG2_E, (0, -bias.shape[-1] % _VECTOR))
    if weight is not None:
        taps = weight.flatten(1).t()
        if local_bias is None:
            local_bias = weight.new_zeros(len(weight))
        kernels = torch.cat((taps, local_bias[None]))
    return tuple(
        None if x is None else x.contiguous() for x in (padding, bias, kernels)
    )


def _common(
    qkv: Tensor,
    num_heads: int,
    groups: SlotGroups,
    extras: tuple[Tensor | None, ...],
    scale: float,
    threads: int,
) -> tuple:
    """What both kernels take, see ``attention.cpp``."""
    padding, bias, kernels = extras
    steps = groups.slots.stride()[:-1] or (0, 0)
    images, channels = qkv.shape[0], qkv.shape[-1]
    return (
        groups.slots,
        *steps,
        groups.ranges,
        len(groups.ranges),
        groups.siblings,
        groups.most_tokens,
        groups.most_keys,
        groups.regions,
        padding,
        bias,
        0 if bias is None else bias.shape[-1],
        kernels,
        *groups.size,
        float(scale),
        images,
        qkv.numel() // (images * channels),
        num_heads,
        channels // (3 * num_heads),
        *(groups.heads or (0, num_heads)),
        threads,
    )
