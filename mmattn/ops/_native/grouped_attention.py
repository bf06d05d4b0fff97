"""Attention inside groups of tokens, computed by ``attention.cpp``.

Axes: B images, T tokens of a map, C = h * d channels, h heads, d channels of
a head, P places, G groups, N queries and L keys of a group.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import KERNELS, contiguous, register_kernel, why_not

# Last arguments of both kernels, see _common.
_COMMON = 'tiitiiiittitiidiiiiiii'
_ATTEND = KERNELS.function('attend', 'tt' + _COMMON)
_ATTEND_BACKWARD = KERNELS.function('attend_backward', 'ttttt' + _COMMON)

# Powers of two take a third of the time of powers of e.
_LOG2_E = 1 / math.log(2)
# The kernels read rows of a bias in vectors; a multiple of their size in C++.
_VECTOR = 16


class Groups(NamedTuple):
    """Groups of queries and the keys that they attend to.

    The index map puts tokens into places. The queries and keys of a group are
    ranges of places. Groups that share places are siblings, and consecutive.

    Attributes:
        index: Token in each place, or -1 for padding, int32, ``(P, )``, or
            ``(B, h, P)`` if images and heads differ.
        ranges: Start and end of the queries and of the keys of each group,
            int32, ``(G, 4)``.
        most_tokens: Places of the largest set of siblings.
        most_keys: Keys of the largest group.
        siblings: Groups that share places. Defaults to 1.
        regions: Region of each place, int32, ``(P, )``; tokens attend inside
            their region only. Defaults to None, no regions.
        heads: First head and number of heads of these groups. Defaults to
            None, all.
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
    """Ranges of groups of one size that attend to themselves."""
    ends = torch.arange(0, num_places + 1, size, device=device).int()
    return torch.stack((ends[:-1], ends[1:]) * 2, dim=1)


class Plan(NamedTuple):
    """Arguments of the kernels.

    Attributes:
        qkv: Queries, keys and values side by side, ``(B, *, 3 * C)``.
        num_heads: Heads h.
        groups: Which tokens attend to which, one for each range of heads.
        scale: Factor of the products.
        bias: Added to the scores of each group, ``(h, N, L)``. Defaults to
            None, no bias.
        weight: Kernels of a depthwise convolution of the values inside each
            group, zeros around it, that is added to the result,
            ``(C, 1, 3, 3)``. Defaults to None, no convolution.
        weight_bias: Its bias, ``(C, )``. Defaults to None, no bias.
        has_all_tokens: Whether the groups contain every token, of each head.
            The results of other tokens are zeros. Defaults to True.
    """

    qkv: Tensor
    num_heads: int
    groups: Sequence[Groups]
    scale: float
    bias: Tensor | None = None
    weight: Tensor | None = None
    weight_bias: Tensor | None = None
    has_all_tokens: bool = True


def register_grouped(
    operation: str,
    arguments: str,
    plan: Callable[..., Plan],
    tensors: Sequence[str],
) -> None:
    """Register the C++ kernel of an operation that is grouped attention.

    Args:
        operation: Name of the operation.
        arguments: What it takes, as in a schema.
        plan: Maps its arguments to those of the kernel.
        tensors: Names in :class:`Plan` of its tensors, in order.
    """

    def forward(*args) -> list[Tensor]:
        return [attend(plan(*args))]

    def backward(
        grad: Tensor, kept: Sequence[Tensor], wanted: Sequence[bool], *args
    ) -> list[Tensor | None]:
        names = [name for name, want in zip(tensors, wanted) if want]
        grads = attend_backward(grad, names, plan(*args))
        return [grads.get(name) for name in tensors]

    def why_not_args(*args) -> str | None:
        return why_not(*(x for x in args if isinstance(x, Tensor)))

    register_kernel(operation, arguments, forward, backward, why_not_args)


def attend(plan: Plan) -> Tensor:
    """Let every token attend to the keys of its group: ``(B, *, C)``."""
    qkv = contiguous(plan.qkv)
    shape = *qkv.shape[:-1], qkv.shape[-1] // 3
    new = qkv.new_empty if plan.has_all_tokens else qkv.new_zeros
    out = new(shape)
    if out.numel():
        extras = _extras(plan)
        for part in plan.groups:
            _ATTEND(qkv, out, *_common(plan, part, extras))
    return out


def attend_backward(
    grad: Tensor, wanted: Sequence[str], plan: Plan
) -> dict[str, Tensor]:
    """Gradients of :func:`attend`, by the name of the tensor.

    Args:
        grad: Of the result, contiguous.
        wanted: Names in :class:`Plan` of the tensors that need a gradient.
            That of ``qkv`` is always computed.
        plan: What :func:`attend` took.
    """
    qkv, (bias, kernels) = contiguous(plan.qkv), _extras(plan)
    new = torch.empty_like if plan.has_all_tokens else torch.zeros_like
    grads = {'qkv': new(qkv)}
    # Each thread has its own sums.
    threads = torch.get_num_threads()
    of_bias = of_kernels = None
    if 'bias' in wanted:
        of_bias = qkv.new_zeros(threads, *bias.shape)
    if 'weight' in wanted or 'weight_bias' in wanted:
        of_kernels = qkv.new_zeros(threads, *kernels.shape)
    if grad.numel():
        for part in plan.groups:
            common = _common(plan, part, (bias, kernels))
            tensors = qkv, grad, grads['qkv'], of_bias, of_kernels
            _ATTEND_BACKWARD(*tensors, *common)
    if of_bias is not None:
        of_bias = of_bias.sum(0)[..., : plan.bias.shape[-1]]
        grads['bias'] = of_bias.contiguous()
    if of_kernels is not None:
        of_kernels = of_kernels.sum(0)
        grads['weight'] = of_kernels[:9].t().reshape(plan.weight.shape)
        if plan.weight_bias is not None:
            grads['weight_bias'] = of_kernels[9].clone()
    return grads


def _extras(plan: Plan) -> tuple[Tensor | None, Tensor | None]:
    """Bias and convolution, as the kernels read them."""
    bias, weight, kernels = plan.bias, plan.weight, None
    if bias is not None:
        bias = F.pad(bias * _LOG2_E, (0, -bias.shape[-1] % _VECTOR))
        bias = bias.contiguous()
    if weight is not None:
        weight_bias = plan.weight_bias
        if weight_bias is None:
            weight_bias = weight.new_zeros(len(weight))
        taps = weight.flatten(1).t()
        kernels = torch.cat((taps, weight_bias[None])).contiguous()
    return bias, kernels


def _common(
    plan: Plan, groups: Groups, extras: tuple[Tensor | None, Tensor | None]
) -> tuple:
    """Last arguments of both kernels, see ``attention.cpp``."""
    (bias, kernels), num_heads = extras, plan.num_heads
    images, channels = plan.qkv.shape[0], plan.qkv.shape[-1]
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
        plan.scale,
        images,
        plan.qkv.numel() // (images * channels),
        num_heads,
        channels // (3 * num_heads),
        *(groups.heads or (0, num_heads)),
        torch.get_num_threads(),
    )
