"""Backbones: images in, a tuple of maps ``(B, C, H, W)`` out."""

from .attention_pyramid import AttentionPyramid
from .boat_cswin import BOATCSWin
from .boat_swin import BOATSwin
from .cswin import CSWin
from .perspective_encoder import PerspectiveEncoder
from .smt import SMT
