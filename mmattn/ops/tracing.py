"""Detect tracing, functorch transforms, autocast and autograd."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import forward_ad

try:
    from torch.compiler import is_compiling
except ImportError:  # torch before 2.3
    from torch._dynamo import is_compiling

_VERSION = tuple(map(int, torch.__version__.split('.')[:2]))
# Older versions do not distinguish dynamic from static sizes.
_KNOWS_DYNAMIC_SHAPES = _VERSION >= (2, 9)
_NOTHING = nullcontext()
_transforms_are_active = torch._C._are_functorch_transforms_active
_tracing_state = torch._C._get_tracing_state
_count_modes = torch._C._len_torch_dispatch_stack


def has_dynamic_shape(x: Tensor) -> bool:
    """Whether a compiler traces ``x`` for maps of more than one size.

    The first axis, the batch, does not count.
    """
    if not _KNOWS_DYNAMIC_SHAPES or not is_compiling():
        return False
    # Slow to import, and a compiler has imported it.
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return not all([has_static_value(side) for side in x.shape[1:]])


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd records operations on one of these tensors."""
    return torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in tensors
    )


def is_exporting() -> bool:
    """Whether ``torch.export`` traces, rather than ``torch.compile``."""
    try:
        # Compilers evaluate torch.compiler.is_exporting() to True.
        return torch.compiler._is_exporting_flag
    except AttributeError:  # torch before 2.7
        return is_compiling() and not torch.compiler.is_dynamo_compiling()


def is_exporting_to_onnx() -> bool:
    """Whether ``torch.onnx.export(dynamo=True)`` traces."""
    return is_exporting() and torch.onnx.is_in_onnx_export()


def in_functorch() -> bool:
    """Whether ``torch.func`` (vmap, grad, ...) or forward AD is active."""
    if _VERSION < (2, 4) and is_compiling():
        return False  # this compiler can trace neither them nor the question
    return _transforms_are_active() or forward_ad._current_level >= 0


def in_dispatch_mode() -> bool:
    """Whether a mode sees every operation: FLOP counters, fake tensors."""
    return _count_modes() > 0


def is_observed() -> bool:
    """Whether a compiler, tracer, transform or mode sees each operation.

    Tensors may be symbolic then.
    """
    # The functions above, inlined: every call of an operation asks.
    return (
        is_compiling()
        or _transforms_are_active()
        or _tracing_state() is not None
        or _count_modes() > 0
        or forward_ad._current_level >= 0
    )


def is_autocast_enabled(device_type: str) -> bool:
    """Whether autocast chooses the dtypes of operations on this device."""
    if _VERSION < (2, 4):
        if device_type == 'cpu':
            return torch.is_autocast_cpu_enabled()
        return torch.is_autocast_enabled()
    try:
        return torch.is_autocast_enabled(device_type)
    except RuntimeError:  # a device that has none, such as 'meta'
        return False


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Keep autocast from narrowing operations on ``x``."""
    device_type = x.device.type
    if not is_autocast_enabled(device_type):
        return _NOTHING
    return torch.autocast(device_type, enabled=False)
