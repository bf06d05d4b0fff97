"""Pictures of what attention layers do with an image."""

from . import explainers  # registers the explanations
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
    inputs_to_picture,
    read_picture,
)
from .page import write_page
from .recording import CallRecorder, select_layers
