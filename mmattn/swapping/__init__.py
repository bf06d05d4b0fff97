"""Replace the backbone of any config of mmdet, mmseg or mmpretrain."""

from .families import find_family, list_families
from .planning import check_channels
from .swap import swap_backbone
from .unsupported import ChannelMismatch, SwapError, UnsupportedSwap

__all__ = [
    'ChannelMismatch',
    'SwapError',
    'UnsupportedSwap',
    'check_channels',
    'find_family',
    'list_families',
    'swap_backbone',
]
