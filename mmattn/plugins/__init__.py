"""Layers for the plugin slots of CNNs: ``(B, C, H, W)`` in and out."""

from .attention_plugin import AttentionPlugin
from .enlca import ENLCA
from .enltb import ENLTB
