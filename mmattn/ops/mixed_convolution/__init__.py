"""Depthwise convolution with another kernel size for each head."""

# The reference is registered first.
from . import reference, cpu, triton  # isort: skip
from .api import mixed_convolution
