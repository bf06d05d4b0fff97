"""Cache tables that depend on sizes alone."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

from .tracing import is_observed

Table = TypeVar('Table')


def cached_per_size(build: Callable[..., Table]) -> Callable[..., Table]:
    """Cache the last 64 results of ``build``, constant tensors.

    Inference tensors, which training cannot save for its backward pass, and
    symbolic tensors of a tracer or a fake mode are not cached.
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
