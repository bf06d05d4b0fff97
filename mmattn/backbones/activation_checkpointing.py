"""Activation checkpointing that leaves running statistics alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch.nn as nn
import torch.utils.checkpoint
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmattn.ops import is_compiling


def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a block, save only its input, recompute the rest in backward.

    Batch normalization would update its running statistics in both passes.
    The second pass therefore updates copies. Without gradients, the block is
    called as it is.
    """
    if not torch.is_grad_enabled():
        return block(x)
    norms = [
        module
        for module in block.modules()
        if isinstance(module, _BatchNorm)
        and module.training
        and module.track_running_stats
    ]
    # Compiled graphs update buffers once, even if they recompute.
    if not norms or is_compiling():
        return torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    return torch.utils.checkpoint.checkpoint(
        block,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(norms)),
    )


@contextmanager
def _statistics_kept(norms: list[_BatchNorm]) -> Iterator[None]:
    # Copies, not None: both passes must save the same number of tensors.
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, kept):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
