"""Attention inside square windows that slide over a map."""

# The reference is registered first.
from . import reference, cpu, sdpa  # isort: skip
from .api import sliding_window_attention
