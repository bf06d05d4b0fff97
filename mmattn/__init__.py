"""Attention backbones and modules for the OpenMMLab ecosystem."""

from mmattn import host_hooks

__version__ = '0.1.0'

host_hooks.install()
