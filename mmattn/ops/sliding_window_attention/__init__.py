"""Attention inside square windows that slide over a map."""

from . import reference  # noqa: F401

# isort: split
from . import cpu, sdpa  # noqa: F401
from .api import sliding_window_attention

__all__ = ['sliding_window_attention']
