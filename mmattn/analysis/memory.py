"""Bytes that a computation keeps, and bytes that it moves."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


def kept_bytes(call: Callable[[], Any], besides: Iterable[Tensor] = ()) -> int:
    """Count the bytes that a call keeps for its backward pass.

    Args:
        call: Computes something that has a gradient, and returns it.
        besides: Tensors that are there anyway, such as the parameters: what
            shares their memory does not count.

    Returns:
        The bytes of the storages of all saved tensors, each counted once.
    """
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        # Held to the end: a freed storage's place is taken again.
        out = call()
    for tensor in besides:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    del out
    return sum(kept.values())


def moved_bytes(call: Callable[[], Any]) -> int:
    """Count the bytes that the operations of a call read and write.

    Each reads its tensors once and writes its results once; views cost
    nothing. That is what these operations move through a memory without
    caches. Fused into fewer, they would move less.
    """
    with _MovedBytes() as counter:
        call()
    return counter.total


class _MovedBytes(TorchDispatchMode):
    """Adds up the sizes of what operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not _is_free(func):
            leaves, _ = tree_flatten((args, kwargs, out))
            self.total += sum(map(_size, leaves))
        return out


def _size(leaf: Any) -> int:
    """Bytes of a tensor; of one that repeats itself, what is there."""
    if not isinstance(leaf, Tensor):
        return 0
    return min(leaf.nbytes, leaf.untyped_storage().nbytes())


def _is_free(func: Any) -> bool:
    """Whether an operation only looks at memory, or only reserves it."""
    schema = func._schema
    is_view = any(
        value.alias_info is not None and not value.alias_info.is_write
        for value in schema.returns
    )
    name = schema.name.partition('::')[2].lstrip('_')
    return is_view or name.startswith(
        ('empty', 'new_empty', 'unsafe_view', 'is_same_size')
    )
