"""Backbones: images in, a tuple of maps ``(B, C, H, W)`` out."""
from .attention_pyramid import AttentionPyramid
from .boat_swin import BOATSwin

__all__ = ['AttentionPyramid', 'BOATSwin']
