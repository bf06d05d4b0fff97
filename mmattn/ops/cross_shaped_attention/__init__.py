"""Attention inside the stripes of a map, two orientations side by side."""

# The reference is registered first.
from . import reference, cpu, sdpa, triton  # isort: skip
from .api import cross_shaped_attention
