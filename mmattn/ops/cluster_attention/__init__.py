"""Attention inside clusters of tokens and across their last cut."""

from . import reference  # noqa: F401

# isort: split
from . import cpu, sdpa, triton  # noqa: F401
from .api import cluster_attention

__all__ = ['cluster_attention']
