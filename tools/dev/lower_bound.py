"""Time the matrix products and convolutions of models, each by itself.

    python tools/dev/lower_bound.py boat-swin-tiny smt-tiny [--size 224]

Needs the package installed, or `PYTHONPATH=.`. A model takes a name as
tools/benchmark.py does. Every product that the reference implementations call
in a forward pass is timed alone, on tensors of its shapes. Their sum is a
lower bound (GEMM time): what a forward pass would take if softmax, norms,
activations, sums and copies cost nothing. It is printed beside the time of
the whole model; training takes at least three times as long.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmattn.analysis.targets import read_target
from mmattn.analysis.timing import quartiles, time_in_turns
from mmattn.ops import reference_only

aten = torch.ops.aten
PRODUCTS = {aten.addmm, aten.mm, aten.bmm, aten.convolution}


class Products(TorchDispatchMode):
    """Counts products by operation, shapes and other arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in PRODUCTS:
            described = tuple(map(describe, args))
            self.found[func.overloadpacket, described] += 1
        return func(*args, **(kwargs or {}))


def describe(value: Any) -> Any:
    """A hashable stand-in for an argument: of a tensor, its shape."""
    if isinstance(value, Tensor):
        return value.shape
    return tuple(value) if isinstance(value, list) else value


def lower_bound(model: nn.Module, images: Tensor, rounds: int) -> float:
    """Seconds of the products of a forward pass, each as fast as it gets."""
    with torch.no_grad(), reference_only(), unfused_attention():
        with Products() as products:
            model.eval()(images)
    seconds = 0.0
    with torch.no_grad():
        for (operation, described), count in products.found.items():
            ways = dict(enumerate(make_calls(operation, described, images)))
            timings = time_in_turns(ways, rounds)
            seconds += count * min(min(way) for way in timings.values())
    return seconds


def unfused_attention() -> AbstractContextManager:
    """Make PyTorch's fused attention call its products one by one."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def make_calls(
    operation: Any, described: tuple, like: Tensor
) -> Iterator[Callable[[], Tensor]]:
    """The ways to compute a product of these shapes."""
    args = [
        like.new_empty(value).normal_(std=0.1)
        if isinstance(value, torch.Size)
        else value
        for value in described
    ]
    yield lambda: operation(*args)
    if operation is aten.convolution:
        maps = args[0].contiguous(memory_format=torch.channels_last)
        yield lambda: operation(maps, *args[1:])
    elif operation is not aten.bmm:
        # nn.Linear multiplies by a transposed weight, at another speed.
        bias = args[0] if operation is aten.addmm else None
        x, weight = args[-2], args[-1].t().contiguous()
        yield lambda: torch.nn.functional.linear(x, weight, bias)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('models', nargs='+')
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    print('| model | ms | lower bound (GEMM time) ms | share |')
    print('|---|---|---|---|')
    images = torch.rand(args.batch, 3, args.size, args.size)
    for name in args.models:
        model = read_target(name).build((args.size, args.size)).eval()
        with torch.no_grad():
            timings = time_in_turns(
                {name: lambda model=model: model(images)}, args.rounds
            )
        _, median, _ = quartiles(timings[name])
        bound = lower_bound(model, images, args.rounds)
        print(
            f'| {name} | {1e3 * median:.4g} | {1e3 * bound:.4g} | '
            f'{bound / median:.0%} |',
            flush=True,
        )


if __name__ == '__main__':
    main()
