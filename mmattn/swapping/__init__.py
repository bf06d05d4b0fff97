"""Replace the backbone of any config of mmdet, mmseg or mmpretrain."""

from .channels import check_channels
from .families import find_family, list_families
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
