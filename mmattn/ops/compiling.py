"""Who else has a hand in the code.

A compiler, a transform, autocast, autograd.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

try:
    from torch.compiler import is_compiling
except ImportError:  # torch before 2.3
    from torch._dynamo import is_compiling

__all__ = [
    'asks_for_gradient',
    'compiles_for_sizes',
    'differentiable_gradients',
    'is_autocast_on_cpu',
    'is_compiling',
    'is_transforming',
    'narrowed',
    'refuse_create_graph',
    'sizes_vary',
]

# Compilers of torch before know no way to ask.
_CAN_ASK = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 9)


def sizes_vary(x: torch.Tensor) -> bool:
    """Whether a compiler looks at ``x`` for maps of more than one size.

    The first axis, that of the images, may vary without.
    """
    return _vary(x.shape[1:])


def compiles_for_sizes(x: torch.Tensor) -> bool:
    """Whether ``torch.compile`` looks at ``x`` for more than one size.

    Here the first axis counts: PyTorch chooses how to convolve by the number
    of images, and a compiler follows one choice. ``torch.export`` follows
    none: its programs convolve maps of all sizes as they are.
    """
    return _vary(x.shape) and torch.compiler.is_dynamo_compiling()


def _vary(sides: Sequence[int]) -> bool:
    if not is_compiling() or not _CAN_ASK:
        return False
    # Costly to import, and a compiler has done so.
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return not all([has_static_value(side) for side in sides])


def asks_for_gradient(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd records what becomes of one of them."""
    return torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in tensors
    )


def is_autocast_on_cpu() -> bool:
    """Whether autocast chooses the dtypes of CPU operations."""
    try:
        return torch.is_autocast_enabled('cpu')
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


def narrowed(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """What autocast makes of the arguments of a convolution.

    For operators that it does not know. The first tensor says the device.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [
        x if x is None or x.dtype == torch.float64 else x.to(dtype)
        for x in tensors
    ]


def is_transforming() -> bool:
    """Whether something looks at each operation to make another one of it.

    ``torch.jit.trace``, ``torch.func`` (vmap, grad, ...) or forward-mode
    differentiation. They need operations whose rules they know.
    """
    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def refuse_create_graph(impl: str) -> None:
    """Raise RuntimeError where gradients of gradients are asked for.

    Silence would leave the layer out of a gradient penalty.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f'impl {impl!r} expects a backward pass without create_graph, '
            "got create_graph=True; force 'reference', see "
            'mmattn.ops.force_implementation'
        )


def differentiable_gradients(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    grad: Tensor,
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients that have gradients, for a backward pass with create_graph.

    Args:
        function: Computes by operations of PyTorch what was computed faster.
        inputs: What it takes.
        grad: Gradient of its result.
        needed: Of which of the inputs gradients are asked for.

    Returns:
        Of each input, or None.
    """
    wanted = [x for x, need in zip(inputs, needed) if need]
    found = iter(
        torch.autograd.grad(function(*inputs), wanted, grad, create_graph=True)
    )
    return tuple(next(found) if need else None for need in needed)
