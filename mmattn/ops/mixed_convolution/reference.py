"""Reference implementation of mixed convolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import register_implementation


@register_implementation('mixed_convolution', 'reference')
def reference(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    heads = x.permute(0, 3, 1, 2).chunk(len(weights), dim=1)
    outs = [
        # torch.jit.trace has tensors for sizes.
        F.conv2d(
            head, w, bias, padding=int(w.shape[-1]) // 2, groups=len(w)
        ).permute(0, 2, 3, 1)
        for head, w, bias in zip(heads, weights, biases)
    ]
    return torch.stack(outs, dim=-1).flatten(-2)  # (B, H, W, c * h)


# A layer passes its ``impl`` to all its operations, 'sdpa' included.
register_implementation('mixed_convolution', 'sdpa')(reference)
