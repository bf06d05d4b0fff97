"""Attention inside disjoint, possibly shifted windows of a map."""

# The reference is registered first.
from . import reference, cpu, sdpa, triton  # isort: skip
from .api import window_attention
