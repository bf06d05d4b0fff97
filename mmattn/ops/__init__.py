"""Functions on tensors. They need torch alone."""
from .attention import attention
from .cluster_attention import cluster_attention
from .clustering import balanced_clusters, cluster_sizes
from .implementations import (
    Implementation,
    choose_implementation,
    list_implementations,
    register_implementation,
)
from .relative_position import (
    relative_position_bias,
    relative_position_index,
    resize_relative_position_bias_table,
)
from .window_attention import window_attention
from .windows import (
    merge_windows,
    pad_map,
    padded_size,
    shifted_window_bias,
    split_windows,
)

__all__ = [
    'Implementation', 'attention', 'balanced_clusters',
    'choose_implementation', 'cluster_attention', 'cluster_sizes',
    'list_implementations', 'merge_windows', 'pad_map', 'padded_size',
    'register_implementation', 'relative_position_bias',
    'relative_position_index', 'resize_relative_position_bias_table',
    'shifted_window_bias', 'split_windows', 'window_attention'
]
