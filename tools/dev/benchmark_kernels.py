"""Measure single operations beside a copy of their bytes.

    python tools/dev/benchmark_kernels.py [--device cuda] [--out FILE]

Needs torch alone, Triton for the kernels of a GPU, and the package installed
or `PYTHONPATH=.`. Every implementation that can run is timed, in inference
and in training, on maps of a tiny backbone: the first and the third stage of
a classifier at 224 x 224, and the first stage of a detector at 800 x 1344.

Columns: milliseconds of one call; "of copy", the bytes of the inputs and the
result (three times those in training) over the milliseconds, as a share of
the bandwidth of a copy; "error" against the reference in float64, as a
multiple of the error of the reference in the same dtype.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from mmattn.ops import (
    balanced_clusters,
    cluster_attention,
    cross_shaped_attention,
    list_implementations,
    mixed_convolution,
    window_attention,
)

# Images relative to --batch, height, width, heads of 32 channels.
MAPS = ((1, 56, 56, 3), (1, 14, 14, 12), (1 / 64, 200, 336, 3))
WINDOW = 7
KERNELS = (3, 5, 7, 9)  # sides, one for each head of SMT
HEADER = (
    '| operation | map | implementation | mode | ms | of copy | error |\n'
    '|---|---|---|---|---|---|---|'
)


class Case(NamedTuple):
    """An operation and its tensors on one map."""

    operation: str
    call: Callable[..., Tensor]  # takes the tensors and impl
    tensors: list[Tensor]  # the map first
    has_gradient: bool = True


def make_cases(
    shape: tuple[int, int, int, int], device: str, dtype: torch.dtype
) -> Iterator[Case]:
    """All operations on a map of images x height x width x heads."""
    B, H, W, h = shape
    C = 32 * h
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device, dtype)

    qkv = normal(B, H, W, 3 * C)
    whole = qkv[:, : H // WINDOW * WINDOW, : W // WINDOW * WINDOW]
    yield Case(
        'window_attention',
        lambda x, bias, impl: window_attention(
            x, h, WINDOW, WINDOW // 2, bias, impl=impl
        ),
        [whole.contiguous(), normal(h, WINDOW**2, WINDOW**2)],
    )
    even = h + h % 2  # half of the heads for each orientation
    width = 1 if min(H, W) > 28 else WINDOW
    yield Case(
        'cross_shaped_attention',
        lambda x, weight, impl: cross_shaped_attention(
            x, even, width, weight, impl=impl
        ),
        [normal(B, H, W, 3 * 32 * even), normal(32 * even, 1, 3, 3)],
    )
    tokens = qkv.flatten(1, 2)
    q = tokens[..., :C].unflatten(-1, (h, -1)).transpose(1, 2)
    yield Case('balanced_clusters', balanced_clusters, [q], False)
    order = balanced_clusters(q, impl='reference')  # (B, h, N)
    yield Case(
        'cluster_attention',
        lambda x, impl: cluster_attention(x, order[: len(x)], impl=impl),
        [tokens],
    )
    c = C // len(KERNELS)
    weights = [normal(c, 1, side, side) for side in KERNELS]
    biases = [normal(c) for _ in KERNELS]

    def convolve(x: Tensor, impl: str) -> Tensor:
        own = [[t.to(x.dtype) for t in part] for part in (weights, biases)]
        return mixed_convolution(x, *own, impl=impl)

    yield Case('mixed_convolution', convolve, [normal(B, H, W, C)])


def measure(case: Case, bandwidth: float, seconds: float) -> Iterator[str]:
    """A line of the table for each implementation and mode."""
    errors = {}
    for row in list_implementations():
        if row.operation != case.operation:
            continue
        try:
            errors[row.name] = find_error(case, row.name)
        except RuntimeError as error:  # cannot run here
            print(f'left out: {error}', file=sys.stderr)
    shape = ' x '.join(map(str, case.tensors[0].shape))
    least = max(errors['reference'] or 0, 1e-12)
    for impl, error in errors.items():
        for mode in ('inference', 'training')[: 1 + case.has_gradient]:
            time, moved = time_call(case, impl, mode, seconds)
            share = moved / time / bandwidth
            relative = '' if error is None else f'{error / least:.2f}'
            yield (
                f'| {case.operation} | {shape} | {impl} | {mode} | '
                f'{1e3 * time:.3f} | {share:.1%} | {relative} |'
            )


@torch.no_grad()
def find_error(case: Case, impl: str) -> float | None:
    """Root mean square error on two images; None for an order of tokens."""
    few = [case.tensors[0][:2], *case.tensors[1:]]
    out = case.call(*few, impl=impl)
    if not out.is_floating_point():
        return None
    exact = case.call(*(x.double() for x in few), impl='reference')
    return (out - exact).square().mean().sqrt().item()


def time_call(
    case: Case, impl: str, mode: str, seconds: float
) -> tuple[float, int]:
    """Median seconds of a call, and the bytes that it has to move."""
    is_training = mode == 'training'
    tensors = [x.detach().requires_grad_(is_training) for x in case.tensors]
    with torch.set_grad_enabled(is_training):
        out = case.call(*tensors, impl=impl)
    ones = torch.ones_like(out)

    def train() -> None:
        out = case.call(*tensors, impl=impl)
        torch.autograd.grad(out, tensors, ones)

    def infer() -> None:
        with torch.no_grad():
            case.call(*tensors, impl=impl)

    time = median_seconds(train if is_training else infer, seconds)
    moved = sum(x.nbytes for x in tensors) + out.nbytes
    return time, moved * (3 if is_training else 1)


def median_seconds(call: Callable[[], object], seconds: float) -> float:
    """Median seconds of a call that runs for about some seconds."""
    timer = Timer(
        'call()',
        globals=dict(call=call),
        num_threads=torch.get_num_threads(),
    )
    return timer.blocked_autorange(min_run_time=seconds).median


def measure_bandwidth(device: str, megabytes: int, seconds: float) -> float:
    """Bytes per second that a large copy reads and writes."""
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    time = median_seconds(lambda: target.copy_(source), seconds)
    return 2 * source.nbytes / time


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--batch', type=int, default=128)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default=default)
    parser.add_argument('--dtype', default='bfloat16')
    parser.add_argument('--seconds', type=float, default=0.1)
    parser.add_argument('--out', type=Path, metavar='FILE')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda needs a GPU, but torch finds none')
    name = 'CPU'
    if args.device == 'cuda':
        name = torch.cuda.get_device_name()
    megabytes = 2048 if args.device == 'cuda' else 256
    bandwidth = measure_bandwidth(args.device, megabytes, args.seconds)
    lines = [
        f'{name}, torch {torch.__version__}, {args.dtype}, '
        f'{bandwidth / 1e9:.4g} GB/s in a copy\n\n{HEADER}'
    ]
    print(*lines)
    for images, *size in MAPS:
        shape = (max(1, round(images * args.batch)), *size)
        dtype = getattr(torch, args.dtype)
        for case in make_cases(shape, args.device, dtype):
            for line in measure(case, bandwidth, args.seconds):
                print(line, flush=True)
                lines.append(line)
            if args.out is not None:  # keep what is done if interrupted
                args.out.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
