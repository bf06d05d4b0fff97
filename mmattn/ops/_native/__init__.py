"""C++ kernels for CPUs, compiled when they are first needed."""

import functools
from pathlib import Path

from torch import Tensor

from .. import custom_op
from .library import (
    Library,
    contiguous,
    is_available,
    pixels,
    warn_of_missing_kernels,
    why_not_tensors,
)

KERNELS = Library('ops', Path(__file__).parent)


def why_not(*tensors: Tensor | None) -> str | None:
    """Why the kernels of this folder do not support these tensors, or None.

    Warns once if the only reason is the compiler.
    """
    reason = why_not_tensors(*tensors)
    if reason is None:
        reason = KERNELS.why_not()
        if reason is not None:
            warn_of_missing_kernels(reason)
    return reason


# The fastest implementations on a CPU.
register_kernel = functools.partial(
    custom_op.register_kernel,
    name='cpp',
    requires='a CPU; float32 or float64; a C++ compiler',
    priority=30,
    devices=('cpu',),
    is_available=is_available,
)
