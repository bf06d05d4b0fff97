"""Attention inside the stripes of a map, two orientations side by side."""

from . import reference  # noqa: F401

# isort: split
from . import cpu, sdpa, triton  # noqa: F401
from .api import cross_shaped_attention

__all__ = ['cross_shaped_attention']
