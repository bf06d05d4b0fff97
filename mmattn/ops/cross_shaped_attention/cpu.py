"""Cross-shaped attention in C++: a stripe at a time, with its LePE."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._native.grouped_attention import (
    Groups,
    Plan,
    equal_groups,
    register_grouped,
)
from ..size_cache import cached_per_size
from ..windows import Size, split_windows
from .api import ARGUMENTS
from .stripes import even_padding, stripe_sizes


def plan(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    lepe_weight: Tensor,
    lepe_bias: Tensor | None,
    scale: float,
) -> Plan:
    """Arguments of the grouped attention."""
    sizes = stripe_sizes(qkv.shape[1:3], stripe_width)
    share = num_heads // len(sizes)
    groups = [
        _stripes(qkv.shape[1:3], stripe, qkv.device)._replace(
            heads=(i * share, share)
        )
        for i, stripe in enumerate(sizes)
    ]
    return Plan(qkv, num_heads, groups, scale, None, lepe_weight, lepe_bias)


@cached_per_size
def _stripes(size: Size, stripe: Size, device: torch.device) -> Groups:
    tokens = torch.arange(size[0] * size[1], device=device)
    tokens = F.pad(tokens.view(size), even_padding(size, stripe), value=-1)
    index = split_windows(tokens[None, ..., None], stripe).flatten().int()
    N = stripe[0] * stripe[1]
    ranges = equal_groups(len(index), N, device)
    return Groups(index, ranges, N, N, size=stripe)


register_grouped(
    'cross_shaped_attention',
    ARGUMENTS,
    plan,
    ('qkv', 'weight', 'weight_bias'),
)
