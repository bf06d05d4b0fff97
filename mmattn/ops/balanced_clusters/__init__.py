"""Balanced clusters of similar tokens, by repeated bisection."""

from . import reference  # noqa: F401

# isort: split
from . import cpu, triton  # noqa: F401
from .api import balanced_clusters

__all__ = ['balanced_clusters']
