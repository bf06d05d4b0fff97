"""Mixed convolution in C++: all heads in one pass that interleaves them.

Axes: B batch, H W rows and columns of the map, C = h * c channels, h heads,
c channels of a head, s_i side of the kernels of head i.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _native
from ..dispatch import find_implementation
from ..tracing import is_autocast_enabled

# Map and its step, weights, bias, sides; heads and their channels; size of
# the map; results; threads.
_CONVOLVE = _native.KERNELS.function('convolve', 'titttiiiiiti')
_CONVOLVE_BACKWARD = _native.KERNELS.function(
    'convolve_backward', 'titttiiiiittti'
)


def why_not(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> str | None:
    if is_autocast_enabled('cpu'):
        return 'autocast supports convolutions of PyTorch only'
    return _native.why_not(x, *weights, *biases)


# The weights of all heads, each (c, s_i, s_i), are flat, the biases (h * c,).
_ARGUMENTS = 'Tensor x, Tensor weights, Tensor biases, int[] sides'


def flatten(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    sides = [w.shape[-1] for w in weights]
    flat = torch.cat([w.flatten() for w in weights])
    return x, flat, torch.cat(list(biases)), sides


def reference(
    x: Tensor, weights: Tensor, biases: Tensor, sides: Sequence[int]
) -> Tensor:
    c = x.shape[-1] // len(sides)
    parts = weights.split([c * side**2 for side in sides])
    parts = [w.view(c, 1, side, side) for w, side in zip(parts, sides)]
    function = find_implementation('mixed_convolution', 'reference').function
    return function(x, parts, biases.split(c))


def forward(
    x: Tensor, weights: Tensor, biases: Tensor, sides: Sequence[int]
) -> list[Tensor]:
    (out,) = empty(x)
    if out.numel():
        x, step = _native.pixels(x)
        _CONVOLVE(x, step, weights, biases, *_shape(x, sides), out, _threads())
    return [out]


def backward(
    grad: Tensor,
    kept: Sequence[Tensor],
    wanted: Sequence[bool],
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    sides: Sequence[int],
) -> list[Tensor | None]:
    grads = [
        torch.zeros(t.shape, dtype=x.dtype, device=x.device) if want else None
        for t, want in zip((x, weights, biases), wanted)
    ]
    if grad.numel():
        x, step = _native.pixels(x)
        shape = _shape(x, sides)
        _CONVOLVE_BACKWARD(x, step, grad, weights, *shape, *grads, _threads())
    return grads


def empty(x: Tensor, *args) -> list[Tensor]:
    """Uninitialized results of :func:`forward`."""
    return [x.new_empty(x.shape)]


def _shape(x: Tensor, sides: Sequence[int]) -> tuple[Tensor | int, ...]:
    h = len(sides)
    B, H, W, C = x.shape
    return torch.tensor(sides, device='cpu'), h, C // h, B, H, W


_threads = torch.get_num_threads
_native.register_kernel(
    'mixed_convolution',
    _ARGUMENTS,
    forward,
    backward,
    why_not,
    empty=empty,
    reference=reference,
    prepare=flatten,
)
