"""Memory that the forward pass keeps for the backward pass."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def saved_activations(
    call: Callable[[], Any], besides: Iterable[Tensor] = ()
) -> int:
    """Bytes that autograd saves during a call for the backward pass.

    Args:
        call: Computes something that requires a gradient, and returns it.
        besides: Tensors that exist anyway, such as parameters and inputs:
            what shares their memory does not count.

    Returns:
        The size of the storages of all saved tensors, each counted once.
    """
    saved = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        # Keep the graph alive: a freed address could be used again.
        out = call()
    for tensor in besides:
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    del out
    return sum(saved.values())
