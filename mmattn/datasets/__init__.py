"""A small data set that needs no download: digit scenes."""

from .digit_folder import DigitFolder, make_digit_folder, read_parameters
from .digit_scenes import DIGIT_CLASSES, DigitSceneSpec
