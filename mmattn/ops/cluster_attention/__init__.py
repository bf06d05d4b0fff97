"""Attention inside clusters of tokens and to part of the sibling cluster."""

# The reference is registered first.
from . import reference, cpu, sdpa, triton  # isort: skip
from .api import cluster_attention
