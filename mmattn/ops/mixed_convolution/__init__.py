"""Depthwise convolution with another kernel size for each head."""

from . import reference  # noqa: F401

# isort: split
from . import cpu, triton  # noqa: F401
from .api import mixed_convolution

__all__ = ['mixed_convolution']
