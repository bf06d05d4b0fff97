"""Attention layers: maps ``(B, H, W, C)`` in, maps of the same shape out."""

from .cross_shaped_window_attention import CrossShapedWindowAttention
from .efficient_non_local_attention import EfficientNonLocalAttention
from .feature_space_attention import FeatureSpaceAttention
from .key_value_attention import KeyValueAttention
from .multi_head_self_attention import MultiHeadSelfAttention
from .scale_aware_modulation import ScaleAwareModulation
from .sliding_window_attention import SlidingWindowAttention
from .window_attention import WindowAttention
