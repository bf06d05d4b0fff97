"""Data for machines without data sets: scenes of real handwritten digits."""

from mmattn.datasets.digit_folder import (
    DigitFolder,
    make_digit_folder,
    read_parameters,
)
from mmattn.datasets.digit_scenes import DIGIT_CLASSES, DigitSceneSpec

__all__ = [
    'DIGIT_CLASSES',
    'DigitFolder',
    'DigitSceneSpec',
    'make_digit_folder',
    'read_parameters',
]
