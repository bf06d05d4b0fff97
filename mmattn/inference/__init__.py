"""A fast path for inference on CPUs, put into a copy of a model."""

from .optimize import optimize_for_inference
