"""What blocks are made of. Maps are ``(B, H, W, C)`` inside a backbone."""

from .attention_block import AttentionBlock
from .conv2d import Conv2d
from .conv_mlp import ConvMLP
from .conv_stem import ConvStem
from .drop_path import DropPath
from .feature_space_block import FeatureSpaceBlock
from .folding import fold_batch_norm, has_fixed_statistics
from .layer_norm import LayerNorm
from .linear import Linear
from .mlp import MLP
from .overlapping_patches import OverlappingPatchEmbed, OverlappingPatchMerging
from .patch_embed import PatchEmbed
from .patch_merging import PatchMerging
from .two_path_block import TwoPathBlock

__all__ = [
    'AttentionBlock',
    'Conv2d',
    'ConvMLP',
    'ConvStem',
    'DropPath',
    'FeatureSpaceBlock',
    'LayerNorm',
    'Linear',
    'MLP',
    'OverlappingPatchEmbed',
    'OverlappingPatchMerging',
    'PatchEmbed',
    'PatchMerging',
    'TwoPathBlock',
    'fold_batch_norm',
    'has_fixed_statistics',
]
