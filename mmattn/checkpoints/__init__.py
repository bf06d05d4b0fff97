"""Checkpoints: read safely, recognised, put into our names."""
from .conversion import Converted, convert, detect_source
from .initializer import BackbonePretrained
from .loading import load_file

__all__ = [
    'BackbonePretrained', 'Converted', 'convert', 'detect_source', 'load_file'
]
