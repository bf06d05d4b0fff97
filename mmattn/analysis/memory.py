"""Saved activations: memory that autograd keeps for the backward pass."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def saved_activations(
    call: Callable[[], Any], besides: Iterable[Tensor] = ()
) -> int:
    """Bytes that autograd saves during a call, each storage counted once.

    Args:
        call: Returns something that requires a gradient.
        besides: Tensors whose storages do not count, such as parameters and
            inputs.
    """
    saved = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        # Keep the graph alive: a freed address could be reused.
        out = call()
    for tensor in besides:
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    del out
    return sum(saved.values())
