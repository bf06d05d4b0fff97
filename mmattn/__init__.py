"""Attention backbones and modules for the OpenMMLab ecosystem."""

__version__ = '0.1.0'
