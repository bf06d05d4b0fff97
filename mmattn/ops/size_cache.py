"""Tables that depend on sizes alone: built once, kept, bounded."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

from .tracing import is_observed

Table = TypeVar('Table')


def cached_per_size(build: Callable[..., Table]) -> Callable[..., Table]:
    """Keep the last 64 results of ``build``, keyed by its arguments.

    ``build`` takes hashable sizes and a device and returns constant tensors.

    Two kinds of tensors must not outlive the call that made them: inference
    tensors, which a later training step could not save for its backward
    pass, and the symbolic tensors of a tracer or a fake mode.
    """

    @functools.lru_cache(maxsize=64)
    def cached(*args):
        with torch.inference_mode(False), torch.no_grad():
            return build(*args)

    @functools.wraps(build)
    def wrapper(*args):
        return build(*args) if is_observed() else cached(*args)

    wrapper.cache_info = cached.cache_info
    wrapper.cache_clear = cached.cache_clear
    return wrapper
