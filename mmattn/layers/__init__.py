"""What blocks are made of. Maps are ``(B, H, W, C)`` inside a backbone."""

from .attention_block import AttentionBlock
from .conv_mlp import ConvMLP
from .conv_stem import ConvStem
from .drop_path import DropPath
from .feature_space_block import FeatureSpaceBlock
from .lepe_attention import LePEAttention
from .mixed_convolution import MixedConvolution
from .mlp import MLP
from .overlapping_patches import OverlappingPatchEmbed, OverlappingPatchMerging
from .patch_embed import PatchEmbed
from .patch_merging import PatchMerging
from .two_path_block import TwoPathBlock

__all__ = [
    'AttentionBlock',
    'ConvMLP',
    'ConvStem',
    'DropPath',
    'FeatureSpaceBlock',
    'LePEAttention',
    'MLP',
    'MixedConvolution',
    'OverlappingPatchEmbed',
    'OverlappingPatchMerging',
    'PatchEmbed',
    'PatchMerging',
    'TwoPathBlock',
]
