"""The rows of the kernels in the table of implementations.

On a machine without a GPU the kernels run through Triton's interpreter if
``TRITON_INTERPRET=1`` is set before the first import: slowly, for tests.
"""

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ..compiling import asks_for_gradient
from ..implementations import register_implementation

# Below the definition, so that 'auto' does not take them: no kernel has been
# measured on a GPU yet. What is the fastest of its operation there shall rank
# above PyTorch's fused attention (10).
_PRIORITY = -1
_NEEDS = 'Triton; a CUDA device; torch 2.4; float32, bfloat16 or float16'
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MOST_CHANNELS = 128
_MOST_FEATURES = 256  # of a token to be clustered
_MOST_CLUSTERED = 2**24  # tokens, for as many programs as a grid holds
_MOST_TOKENS = 64  # of a window, which a program holds as a whole
_MOST_BYTES = 256  # of a token's channels, for four such windows to fit


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


# Looked up once: a compiler that reads a call cannot follow the search.
_HAS_TRITON = _is_installed('triton')
_HAS_CUSTOM_OPERATORS = hasattr(torch.library, 'custom_op')
_IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


def missing_to_compile() -> str | None:
    """Why no kernel can be compiled on this machine, or None."""
    if not _HAS_TRITON:
        return "it needs the package 'triton', which is not installed"
    if not _HAS_CUSTOM_OPERATORS:
        return (
            'it needs custom operators, of torch 2.4 or newer, got torch '
            f'{torch.__version__}'
        )
    return None


def missing() -> str | None:
    """Why no kernel can run on this machine, or None."""
    reason = missing_to_compile()
    if reason:
        return reason
    if not _IS_INTERPRETED and not torch.cuda.is_available():
        return 'it needs a CUDA device, torch sees none'
    return None


def _refuses_tensor(x: Tensor) -> str | None:
    if not _IS_INTERPRETED and not x.is_cuda:
        return f'it takes tensors on a CUDA device, got one on {x.device}'
    if x.dtype not in _DTYPES:
        return f'it takes float32, bfloat16 or float16, got {x.dtype}'
    return None


def _refuses_channels(channels: int) -> str | None:
    if channels > _MOST_CHANNELS:
        return (
            f'it takes at most {_MOST_CHANNELS} channels of a head, got '
            f'{channels}'
        )
    return None


def _refuses_cluster_attention(
    qkv: Tensor, order: Tensor, *args
) -> str | None:
    channels = qkv.shape[-1] // (3 * order.shape[1])
    return _refuses_tensor(qkv) or _refuses_channels(channels)


@register_implementation(
    'cluster_attention',
    'triton',
    needs=_NEEDS,
    priority=_PRIORITY,
    missing=missing,
    refuses=_refuses_cluster_attention,
    any_size=True,
)
def _cluster_attention(*args) -> Tensor:
    from .cluster_attention import cluster_attention

    return cluster_attention(*args)[0]


def _refuses_window_attention(
    qkv: Tensor, num_heads: int, window_size: int, *args
) -> str | None:
    if window_size**2 > _MOST_TOKENS:
        return (
            f'it takes windows of at most {_MOST_TOKENS} tokens, got '
            f'{window_size} x {window_size}'
        )
    channels = qkv.shape[-1] // (3 * num_heads)
    if channels * qkv.element_size() > _MOST_BYTES:
        return (
            f'it takes at most {_MOST_BYTES} bytes of channels of a head, got '
            f'{channels} of {qkv.dtype}'
        )
    return _refuses_tensor(qkv)


@register_implementation(
    'window_attention',
    'triton',
    needs=f'{_NEEDS}; windows of at most {_MOST_TOKENS} tokens',
    priority=_PRIORITY,
    missing=missing,
    refuses=_refuses_window_attention,
    any_size=True,
)
def _window_attention(
    qkv: Tensor,
    num_heads: int,
    window_size: int,
    shift: int,
    bias: Tensor | None,
    padding: Tensor | None,
    scale: float,
) -> Tensor:
    from .window_attention import window_attention

    options = num_heads, window_size, shift, scale
    return window_attention(qkv, bias, padding, *options)


def _refuses_cross_shaped_attention(
    qkv: Tensor, num_heads: int, *args
) -> str | None:
    channels = qkv.shape[-1] // (3 * num_heads)
    return _refuses_tensor(qkv) or _refuses_channels(channels)


@register_implementation(
    'cross_shaped_attention',
    'triton',
    needs=_NEEDS,
    priority=_PRIORITY,
    missing=missing,
    refuses=_refuses_cross_shaped_attention,
    any_size=True,
)
def _cross_shaped_attention(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    local_weight: Tensor,
    local_bias: Tensor | None,
    scale: float,
) -> Tensor:
    from .cross_shaped_attention import cross_shaped_attention

    options = num_heads, stripe_width, scale
    return cross_shaped_attention(qkv, local_weight, local_bias, *options)[0]


def _refuses_clustering(features: Tensor, *args) -> str | None:
    channels = features.shape[-1]
    if channels > _MOST_FEATURES:
        return (
            f'it takes features of at most {_MOST_FEATURES} channels, got '
            f'{channels}'
        )
    if features.shape[-2] > _MOST_CLUSTERED:
        return (
            f'it takes at most {_MOST_CLUSTERED} tokens, got '
            f'{features.shape[-2]}'
        )
    return _refuses_tensor(features)


@register_implementation(
    'balanced_clusters',
    'triton',
    needs=_NEEDS,
    priority=_PRIORITY,
    missing=missing,
    refuses=_refuses_clustering,
    any_size=True,
)
def _balanced_clusters(*args) -> Tensor:
    from .clustering import balanced_clusters

    return balanced_clusters(*args)


def _refuses_convolution(x: Tensor, *args) -> str | None:
    return _refuses_tensor(x)


@register_implementation(
    'mixed_convolution',
    'triton',
    needs=_NEEDS,
    priority=_PRIORITY,
    missing=missing,
    refuses=_refuses_convolution,
    any_size=True,
)
def _mixed_convolution(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    from .mixed_convolution import mixed_convolution

    return mixed_convolution(*_stacked(x, weights, biases))


def _stacked(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """The map, the taps and biases of all heads, and the heads' sides."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):  # as PyTorch's convolution
        x = x.to(torch.get_autocast_dtype(kind))
    taps = torch.cat([w.flatten(1).mT for w in weights])  # (T, c)
    sides = [w.shape[-1] for w in weights]
    return x, taps, torch.stack(list(biases)), sides


def _refuses_expansion(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *matrices: Tensor,
) -> str | None:
    if asks_for_gradient(x, *weights, *biases, *matrices):
        return 'it is for inference, got tensors that ask for a gradient'
    return _refuses_tensor(x)


@register_implementation(
    'mixed_expansion',
    'triton',
    needs=f'{_NEEDS}; no gradient',
    priority=_PRIORITY,
    missing=missing,
    refuses=_refuses_expansion,
    any_size=True,
)
def _mixed_expansion(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    matrices: Tensor,
    bias: Tensor,
) -> Tensor:
    from .mixed_expansion import mixed_expansion

    return mixed_expansion(*_stacked(x, weights, biases), matrices, bias)
