"""What runs a config: launching, learning rates, hooks."""

from .layer_decay import LayerDecayOptimWrapperConstructor
from .redraw_projection_hook import RedrawProjectionHook

__all__ = ['LayerDecayOptimWrapperConstructor', 'RedrawProjectionHook']
