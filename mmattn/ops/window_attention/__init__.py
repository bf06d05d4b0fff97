"""Attention inside disjoint, possibly shifted windows of a map."""

from . import reference  # noqa: F401

# isort: split
from . import cpu, sdpa, triton  # noqa: F401
from .api import window_attention

__all__ = ['window_attention']
