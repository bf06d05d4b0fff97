"""What attention layers do with a picture: maps, clusters, modulators."""

from . import explainers  # noqa: F401, fills the table of explanations
from .explanations import (
    AttentionRows,
    Clusters,
    Modulation,
    explain,
    register_explanation,
)
from .images import (
    NetworkImage,
    image_for_backbone,
    image_for_model,
    read_picture,
    show_inputs,
)
from .page import write_page
from .recording import CallRecorder, select_layers

__all__ = [
    'AttentionRows',
    'CallRecorder',
    'Clusters',
    'Modulation',
    'NetworkImage',
    'explain',
    'image_for_backbone',
    'image_for_model',
    'read_picture',
    'register_explanation',
    'select_layers',
    'show_inputs',
    'write_page',
]
