"""Balanced clusters of similar tokens, by repeated bisection."""

# The reference is registered first.
from . import reference, cpu, triton  # isort: skip
from .api import balanced_clusters
