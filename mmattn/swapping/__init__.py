"""Replace the backbone of any config of mmdet, mmseg or mmpretrain."""

from .coverage import Coverage
from .families import find_family, list_families
from .refusal import SwapRefused
from .swap import swap_backbone

__all__ = [
    'Coverage',
    'SwapRefused',
    'find_family',
    'list_families',
    'swap_backbone',
]
