"""Cross-shaped attention in C++: a stripe at a time, with its LePE."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _native
from .._native.grouped_attention import (
    Groups,
    attend,
    attend_backward,
    equal_groups,
)
from ..custom_op import define_kernel, empty_like_values
from ..dispatch import find_implementation
from ..size_cache import cached_per_size
from ..windows import Size, split_windows
from .api import ARGUMENTS
from .stripes import even_padding, stripe_sizes


def why_not(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    lepe_weight: Tensor,
    lepe_bias: Tensor | None,
    scale: float,
) -> str | None:
    return _native.why_not(qkv, lepe_weight, lepe_bias)


def plan(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    lepe_weight: Tensor,
    lepe_bias: Tensor | None,
    scale: float,
) -> tuple:
    """Arguments of the grouped attention."""
    sizes = stripe_sizes(qkv.shape[1:3], stripe_width)
    share = num_heads // len(sizes)
    groups = [
        _stripes(qkv.shape[1:3], stripe, qkv.device)._replace(
            heads=(i * share, share)
        )
        for i, stripe in enumerate(sizes)
    ]
    return qkv, num_heads, groups, scale, None, lepe_weight, lepe_bias


def forward(*args) -> list[Tensor]:
    return [attend(*plan(*args))]


def backward(
    grad: Tensor, kept: Sequence[Tensor], wanted: Sequence[bool], *args
) -> list[Tensor | None]:
    wanted = [wanted[0], False, *wanted[1:]]  # there is no bias of scores
    dqkv, _, *others = attend_backward(grad, wanted, *plan(*args))
    return [dqkv, *others]


@cached_per_size
def _stripes(size: Size, stripe: Size, device: torch.device) -> Groups:
    tokens = torch.arange(size[0] * size[1], device=device)
    tokens = F.pad(tokens.view(size), even_padding(size, stripe), value=-1)
    index = split_windows(tokens[None, ..., None], stripe).flatten().int()
    N = stripe[0] * stripe[1]
    ranges = equal_groups(len(index), N, device)
    return Groups(index, ranges, N, N, size=stripe)


_native.register_kernel(
    'cross_shaped_attention',
    define_kernel(
        'cross_shaped_attention_cpp',
        ARGUMENTS,
        forward,
        backward,
        empty_like_values,
        find_implementation('cross_shaped_attention', 'reference').function,
    ),
    why_not,
)
