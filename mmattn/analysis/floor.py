"""What the products of a model would take, were there nothing else."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmattn.ops import definitions_first, linear

from .timing import time_in_turns

try:
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError:  # torch before 2.3
    sdpa_kernel = None

_ROUNDS = 5
aten = torch.ops.aten
_PRODUCTS = {aten.addmm, aten.mm, aten.bmm, aten.convolution}


def floor_seconds(model: nn.Module, images: Tensor) -> float:
    """Seconds of the products of a forward pass, each as fast as can be.

    Every matrix product and convolution that the definitions of a model call
    is run by itself, on tensors of its shapes, in all the ways at hand:
    PyTorch's own, this project's for a linear layer, with the channels last
    for a convolution. The shortest counts. A real pass also normalises,
    activates, adds and copies; only one that calls other products, smaller
    ones that stay in the caches say, can be faster.

    Args:
        model: On a CPU or a GPU.
        images: A batch, ``(B, 3, H, W)``.
    """
    products = _Products()
    with _evaluated(model), torch.no_grad(), definitions_first(), _unfused():
        with products:
            model(images)
    seconds = 0.0
    with torch.no_grad():
        for product, count in products.found.items():
            ways = dict(enumerate(_ways(product, images)))
            laps = time_in_turns(ways, _ROUNDS)
            best = min(lap.seconds for way in laps.values() for lap in way)
            seconds += count * best
    return seconds


def _unfused() -> AbstractContextManager:
    """Let models that call PyTorch's fused attention show its products."""
    if sdpa_kernel is None:
        return torch.backends.cuda.sdp_kernel(
            enable_flash=False, enable_mem_efficient=False
        )
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class _Products(TorchDispatchMode):
    """Counts the products by operation, shapes and other arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func.overloadpacket in _PRODUCTS:
            described = tuple(map(_describe, args))
            self.found[func.overloadpacket, described] += 1
        return func(*args, **(kwargs or {}))


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape
    return tuple(value) if isinstance(value, list) else value


def _ways(product: tuple, like: Tensor) -> list[Callable[[], Tensor]]:
    """Calls that compute a product of these shapes."""
    operation, described = product
    args = [
        like.new_empty(value).normal_(std=0.1)
        if isinstance(value, torch.Size)
        else value
        for value in described
    ]
    ways = [lambda: operation(*args)]
    if operation is aten.convolution:
        maps = args[0].contiguous(memory_format=torch.channels_last)
        ways.append(lambda: operation(maps, *args[1:]))
    elif operation is not aten.bmm:
        # A linear layer multiplies by a transposed weight, at another pace.
        bias = args[0] if operation is aten.addmm else None
        x, weight = args[-2], args[-1].t().contiguous()
        ways.append(lambda: torch.nn.functional.linear(x, weight, bias))
        ways.append(lambda: linear(x, weight, bias))
    return ways
