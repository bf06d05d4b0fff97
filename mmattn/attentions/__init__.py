"""Attention layers: maps ``(B, H, W, C)`` in, maps of the same shape out."""
from .feature_space_attention import FeatureSpaceAttention
from .window_attention import WindowAttention

__all__ = ['FeatureSpaceAttention', 'WindowAttention']
