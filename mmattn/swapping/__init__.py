"""Replace the backbone of any config of mmdet, mmseg or mmpretrain."""

from .families import find_family, list_families
from .swap import swap_backbone
from .unsupported import SwapError, UnsupportedSwap

__all__ = [
    'SwapError',
    'UnsupportedSwap',
    'find_family',
    'list_families',
    'swap_backbone',
]
