"""Activation checkpoints that leave running statistics alone."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch.nn as nn
import torch.utils.checkpoint
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmattn.ops import is_compiling


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a block, keep its input only, compute the rest again later.

    Batch normalisation would count a batch twice, once in each pass: the
    second pass normalises alike, but counts on copies of the running
    statistics.

    Args:
        block: Takes and returns a tensor.
        x: What it takes.
    """
    norms = [
        module
        for module in block.modules()
        if isinstance(module, _BatchNorm)
        and module.training
        and module.track_running_stats
    ]
    # A compiler writes what a graph writes once, whatever it computes again.
    if not norms or is_compiling():
        return torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _statistics_kept(norms)

    return torch.utils.checkpoint.checkpoint(
        block, x, use_reentrant=False, context_fn=contexts
    )


@contextmanager
def _statistics_kept(norms: list[_BatchNorm]) -> Iterator[None]:
    # Copies, not None: the passes have to save as many tensors for backward.
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
