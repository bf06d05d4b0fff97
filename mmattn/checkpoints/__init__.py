"""Checkpoints: safe reading, format detection and conversion."""

from .completeness import missing_names
from .conversion import (
    ConversionError,
    Converted,
    UnknownFormat,
    UnknownKeys,
    convert,
    detect_source,
    source_names,
)
from .initializer import BackbonePretrained
from .loading import load_file
from .saving import save_file

__all__ = [
    'BackbonePretrained',
    'ConversionError',
    'Converted',
    'UnknownFormat',
    'UnknownKeys',
    'convert',
    'detect_source',
    'load_file',
    'missing_names',
    'save_file',
    'source_names',
]
