"""Attention backbones and modules for the OpenMMLab ecosystem."""

from typing import Any

from mmattn import codebase_hooks

__version__ = '0.1.0'

codebase_hooks.install()


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used."""
    if name == 'optimize_for_inference':
        from mmattn.inference import optimize_for_inference

        return optimize_for_inference
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
