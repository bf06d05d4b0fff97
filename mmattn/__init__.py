"""Attention backbones and modules for the OpenMMLab ecosystem."""

from mmattn import codebase_hooks

__version__ = '0.1.0'

codebase_hooks.install()
