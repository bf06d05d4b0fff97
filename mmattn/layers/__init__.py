"""What blocks are made of. Maps are ``(B, H, W, C)`` inside a backbone."""
from .attention_block import AttentionBlock
from .mlp import MLP
from .patch_embed import PatchEmbed
from .patch_merging import PatchMerging

__all__ = ['AttentionBlock', 'MLP', 'PatchEmbed', 'PatchMerging']
