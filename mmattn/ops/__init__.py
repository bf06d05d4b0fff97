"""Functions on tensors. They need torch alone."""

from .attention import attention
from .cluster_attention import cluster_attention
from .clustering import balanced_clusters, cluster_sizes
from .compiling import asks_for_gradient, is_compiling, sizes_vary
from .contrastive import contrastive_loss
from .convolution import depthwise_convolution
from .cross_shaped_attention import cross_shaped_attention
from .grouped_linear import grouped_linear
from .implementations import (
    Implementation,
    choose_implementation,
    definitions_first,
    force_implementation,
    forced_implementations,
    list_implementations,
    register_implementation,
    watch_choices,
    where_it_exists,
)
from .kernel import kernel_attention, orthogonal_projection
from .layer_norm import layer_norm
from .linear import linear
from .mixed_convolution import mixed_convolution
from .mixed_expansion import mixed_expansion, tell_of_parts
from .perceptron import perceptron
from .relative_position import (
    relative_position_bias,
    relative_position_index,
    resize_relative_position_bias_table,
)
from .sine_position import sine_position
from .sliding import sliding_window_attention
from .strided_convolution import strided_convolution
from .window_attention import window_attention
from .windows import (
    merge_windows,
    pad_map,
    padded_size,
    shifted_window_bias,
    split_windows,
)

# isort: split
# Rows of operations whose definitions are there by now.
from .triton_kernels import table  # noqa: E402, F401

__all__ = [
    'Implementation',
    'asks_for_gradient',
    'attention',
    'balanced_clusters',
    'choose_implementation',
    'cluster_attention',
    'cluster_sizes',
    'contrastive_loss',
    'cross_shaped_attention',
    'definitions_first',
    'depthwise_convolution',
    'force_implementation',
    'forced_implementations',
    'grouped_linear',
    'is_compiling',
    'kernel_attention',
    'layer_norm',
    'linear',
    'list_implementations',
    'merge_windows',
    'mixed_convolution',
    'mixed_expansion',
    'orthogonal_projection',
    'pad_map',
    'padded_size',
    'perceptron',
    'register_implementation',
    'relative_position_bias',
    'relative_position_index',
    'resize_relative_position_bias_table',
    'shifted_window_bias',
    'sine_position',
    'sizes_vary',
    'sliding_window_attention',
    'split_windows',
    'strided_convolution',
    'tell_of_parts',
    'watch_choices',
    'where_it_exists',
    'window_attention',
]
