"""A small data set that needs no download: digit scenes."""

from .digit_folder import DigitFolder, make_digit_folder, read_parameters
from .digit_scenes import DIGIT_CLASSES, DigitSceneSpec

__all__ = [
    'DIGIT_CLASSES',
    'DigitFolder',
    'DigitSceneSpec',
    'make_digit_folder',
    'read_parameters',
]
