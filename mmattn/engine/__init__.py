"""What runs a config: launching, learning rates, hooks."""

from .attention_backend_hook import AttentionBackendHook
from .attention_visualization_hook import AttentionVisualizationHook
from .backbone_constructor import BackboneOptimWrapperConstructor
from .layer_decay import LayerDecayOptimWrapperConstructor
from .redraw_projection_hook import RedrawProjectionHook

__all__ = [
    'AttentionBackendHook',
    'AttentionVisualizationHook',
    'BackboneOptimWrapperConstructor',
    'LayerDecayOptimWrapperConstructor',
    'RedrawProjectionHook',
]
