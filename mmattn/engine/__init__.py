"""What runs a config: launching, learning-rate report, hooks."""

from .redraw_projection_hook import RedrawProjectionHook

__all__ = ['RedrawProjectionHook']
