"""Functions on tensors. They need torch alone."""

from .attention import attention
from .balanced_clusters import balanced_clusters
from .cluster_attention import cluster_attention
from .cluster_layout import cluster_sizes
from .contrastive import contrastive_loss
from .cross_shaped_attention import cross_shaped_attention
from .dispatch import (
    Implementation,
    force_implementation,
    forced_implementations,
    list_implementations,
    reference_only,
    register_implementation,
    watch_choices,
)
from .mixed_convolution import mixed_convolution
from .random_feature_attention import (
    orthogonal_projection,
    random_feature_attention,
)
from .relative_position import (
    relative_position_bias,
    relative_position_index,
    resize_relative_position_bias_table,
)
from .sine_position import sine_position
from .sliding_window_attention import sliding_window_attention
from .tracing import has_dynamic_shape, is_compiling, needs_grad
from .window_attention import window_attention
from .windows import (
    merge_windows,
    pad_map,
    padded_size,
    shifted_window_bias,
    split_windows,
)
