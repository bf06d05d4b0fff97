"""Tables that depend on sizes alone: built once, kept, bounded."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .compiling import is_compiling

Table = TypeVar('Table')


def cached_per_size(build: Callable[..., Table]) -> Callable[..., Table]:
    """Keep the last 64 results of ``build``, keyed by its arguments.

    ``build`` takes hashable sizes and a device and returns constant tensors.

    Two kinds of tensor must not outlive the call that made them, so both are
    avoided: an inference tensor, which a later training step could not save
    for its backward pass, and a symbolic tensor of a tracer or a fake mode.
    ``torch.jit.trace`` has tensors for sizes, and none of them twice.
    """
    cached = functools.lru_cache(maxsize=64)(build)

    @functools.wraps(build)
    def wrapper(*args):
        if (
            is_compiling()
            or torch.jit.is_tracing()
            or _get_current_dispatch_mode() is not None
        ):
            return build(*args)
        with torch.inference_mode(False), torch.no_grad():
            return cached(*args)

    wrapper.cache_info = cached.cache_info
    wrapper.cache_clear = cached.cache_clear
    return wrapper
