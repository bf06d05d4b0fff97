"""Who else has a hand in the code just now: a compiler, autocast."""

import torch

try:
    from torch.compiler import is_compiling
except ImportError:  # torch before 2.3
    from torch._dynamo import is_compiling

__all__ = ['is_autocast_on_cpu', 'is_compiling']


def is_autocast_on_cpu() -> bool:
    """Whether autocast chooses the dtypes of CPU operations."""
    try:
        return torch.is_autocast_enabled('cpu')
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()
