"""Balanced clusters in C++: one group after the other, in the caches."""

import torch
from torch import Tensor

from .. import _native
from ..cluster_layout import cluster_levels
from .api import ARGUMENTS, empty_order

# Features and order; sizes and strides of four axes; levels, iterations;
# temperature; threads.
_CLUSTER = _native.KERNELS.function('balanced_clusters', 'ttiiiiiiiiiidi')
_HALF = (torch.bfloat16, torch.float16)


def why_not(features: Tensor, *args) -> str | None:
    if features.dtype in _HALF:
        features = features[..., :0].float()  # what the kernel will get
    return _native.why_not(features)


def balanced_clusters(
    features: Tensor, cluster_size: int, iterations: int, temperature: float
) -> Tensor:
    order = empty_order(features)
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    features = features.resolve_neg()
    if features.ndim == 3:
        features = features[None]
    levels = cluster_levels(features.shape[2], cluster_size)
    _CLUSTER(
        *(features, order),
        *(*features.shape, *features.stride()),
        *(levels, iterations, temperature, torch.get_num_threads()),
    )
    return order


_native.register_kernel(
    'balanced_clusters',
    ARGUMENTS,
    balanced_clusters,
    None,
    why_not,
    empty=empty_order,
)
