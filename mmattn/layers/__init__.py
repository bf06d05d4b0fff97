"""Layers of the blocks. Maps are ``(B, H, W, C)`` inside a backbone."""

from .attention_block import AttentionBlock
from .drop_path import DropPath
from .feature_space_block import FeatureSpaceBlock
from .lepe_attention import LePEAttention
from .mixed_convolution import MixedConvolution
from .mlp import MLP, ConvMLP
from .patches import (
    ConvStem,
    OverlappingPatchEmbed,
    OverlappingPatchMerging,
    PatchEmbed,
    PatchMerging,
)
from .two_path_block import TwoPathBlock
