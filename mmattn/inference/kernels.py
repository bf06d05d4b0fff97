"""Launch the kernels of ``native/``, and those of oneDNN.

None of them has a gradient; :func:`can_run` says when they can be used.

Axes: ``*`` any leading axes, C input, D hidden and E output channels; B batch,
H W rows and columns of a map, h heads of c channels each. Weights of linear
layers are ``(D, C)`` and ``(E, D)``, biases ``(D,)`` and ``(E,)`` or None.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.ops import _native
from mmattn.ops._native import Library, contiguous, pixels, why_not_tensors
from mmattn.ops.tracing import is_autocast_enabled, is_observed, needs_grad

LIBRARY = Library(
    'inference',
    Path(__file__).parent / 'native',
    include=[Path(_native.__file__).parent],
)
_linear = LIBRARY.function('linear', 'ttttiiiii')
_mlp = LIBRARY.function('mlp', 'ttttttiiiiii')
_layer_norm = LIBRARY.function('layer_norm', 'ttttiidi')
_depthwise = LIBRARY.function('depthwise', 'tittiiiiiiti')
_modulation = LIBRARY.function('modulation', 'tittt' + 'iiiiii' + 'ttti')

# For fewer tokens, packing the matrices takes longer than it saves.
_FEWEST_TOKENS = 512
# Bytes of a matrix that a kernel multiplies with at a time: half an L2 cache.
_BLOCK_BYTES = 2**19
# Hidden values that an MLP with a convolution computes at a time: few enough
# to stay in the caches between its steps, enough for fast matrix products.
_MOST_HIDDEN = 2**22
# The operator of torch.compile's own linear layers.
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, '_linear_pointwise'
)


def can_run(x: Tensor, *parameters: Tensor | None) -> bool:
    """Whether the kernels support ``x`` and parameters.

    They need float32 or float64 on a CPU and contiguous parameters, without
    gradients, autocast, tracing or transforms.
    """
    return (
        not is_observed()
        and why_not_tensors(x, *parameters) is None
        and all(p is None or p.is_contiguous() for p in parameters)
        and x.numel() > 0
        and not needs_grad(x, *parameters)
        and not is_autocast_enabled('cpu')
        and LIBRARY.why_not() is None
    )


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    with_gelu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Map ``(*, C)`` to ``(*, E)`` by ``(E, C)`` and ``(E,)``.

    Args:
        x: ``(*, C)``.
        weight: ``(E, C)``.
        bias: ``(E,)`` or None.
        with_gelu: Apply the GELU to the result. Defaults to False.
        out: Contiguous tensor for the result. Defaults to None, a new one.
    """
    E, C = weight.shape
    rows = x.numel() // C
    if not with_gelu and rows >= _FEWEST_TOKENS and _in_vectors(x, C, E):
        x = contiguous(x)
        if out is None:
            out = x.new_empty(*x.shape[:-1], E)
        threads = torch.get_num_threads()
        _linear(x, weight, bias, out, rows, C, E, _BLOCK_BYTES, threads)
        return out
    if (
        _HAS_ONEDNN
        and x.dtype == torch.float32
        and torch.backends.mkldnn.enabled
    ):
        post = ('gelu', [], 'none') if with_gelu else ('none', [], '')
        result = torch.ops.mkldnn._linear_pointwise(x, weight, bias, *post)
    else:
        result = F.linear(x, weight, bias)
        result = F.gelu(result) if with_gelu else result
    return result if out is None else out.copy_(result)


def mlp(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
) -> Tensor:
    """Map ``(*, C)`` to ``(*, E)`` by two linear layers and a GELU between."""
    (D, C), E = weight1.shape, len(weight2)
    rows = x.numel() // C
    if rows < _FEWEST_TOKENS or not _in_vectors(x, C, D, E):
        hidden = linear(x, weight1, bias1, with_gelu=True)
        return linear(hidden, weight2, bias2)
    x = contiguous(x)
    out = x.new_empty(*x.shape[:-1], E)
    sizes = rows, C, D, E, _BLOCK_BYTES, torch.get_num_threads()
    _mlp(x, weight1, bias1, weight2, bias2, out, *sizes)
    return out


def conv_mlp(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    kernels: Tensor,
    kernel_bias: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
) -> Tensor:
    """Map ``(B, H, W, C)`` to ``(B, H, W, E)``: an MLP with a convolution.

    The depthwise convolution comes before the GELU; a residual around it is
    part of ``kernels``, ``(D, 1, s, s)`` with odd s.
    """
    num_hidden = x.shape[:-1].numel() * len(weight1)
    num_pieces = min(-(-num_hidden // _MOST_HIDDEN), len(x))
    size = -(-len(x) // num_pieces)  # images of a piece
    out = x.new_empty(*x.shape[:-1], len(weight2))
    for x_i, out_i in zip(x.split(size), out.split(size)):
        hidden = linear(x_i, weight1, bias1)
        hidden = depthwise_convolution(hidden, kernels, kernel_bias, True)
        linear(hidden, weight2, bias2, out=out_i)
    return out


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Normalize ``(*, C)`` along its last axis."""
    C = x.shape[-1]
    if not _in_vectors(x, C):
        return F.layer_norm(x, (C,), weight, bias, eps)
    x = contiguous(x)
    out = torch.empty_like(x)
    sizes = x.numel() // C, C, eps, torch.get_num_threads()
    _layer_norm(x, weight, bias, out, *sizes)
    return out


def depthwise_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, with_gelu: bool = False
) -> Tensor:
    """Convolve each channel of ``(B, H, W, C)``, with zeros around the map.

    Args:
        x: ``(B, H, W, C)``; may be some channels of a wider map.
        weight: ``(C, 1, s, s)`` with odd s.
        bias: ``(C,)`` or None.
        with_gelu: Apply the GELU to the result. Defaults to False.
    """
    x, step = pixels(x)
    out = x.new_empty(x.shape)
    sizes = weight.shape[-1], len(weight), with_gelu, *x.shape[:3]
    threads = torch.get_num_threads()
    _depthwise(x, step, weight, bias, *sizes, out, threads)
    return out


def modulation(
    x: Tensor,
    sides: Sequence[int],
    kernels: Tensor,
    biases: Tensor,
    matrices: Tensor,
    bias: Tensor,
) -> Tensor:
    """Convolve heads at their scales, widen their groups, apply the GELU.

    Args:
        x: ``(B, H, W, h * c)``.
        sides: Odd side s_i of the kernels of each head.
        kernels: Kernels of all heads, ``(c, s_i, s_i)`` each, flattened.
        biases: Their biases, ``(h * c,)``.
        matrices: Of each group, ``(c * e, h)``.
        bias: ``(c * e,)``.

    Returns:
        ``(B, H, W, c * e)``.
    """
    x, step = pixels(x)
    out = x.new_empty(*x.shape[:3], len(matrices))
    c = x.shape[-1] // len(sides)
    sizes = len(sides), c, *x.shape[:3], len(matrices) // c
    sides = torch.tensor(sides, device='cpu')
    threads = torch.get_num_threads()
    _modulation(
        x, step, kernels, biases, sides, *sizes, matrices, bias, out, threads
    )
    return out


def _in_vectors(x: Tensor, *channels: int) -> bool:
    """Whether the channels fill whole vectors, which the kernels read."""
    width = _vector_bytes() // x.element_size()
    return all(count % width == 0 for count in channels)


@functools.cache
def _vector_bytes() -> int:
    return LIBRARY.constant('vector_bytes')
