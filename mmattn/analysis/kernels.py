"""How near single operations come to the speed of a copy.

An operation that reads its inputs and writes its result once, and computes
for nothing, takes as long as a copy of as many bytes.

Axes: B images, H W rows and columns of a map, h heads, d channels of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmattn.ops import (
    balanced_clusters,
    cluster_attention,
    cross_shaped_attention,
    list_implementations,
    mixed_convolution,
    mixed_expansion,
    window_attention,
)
from mmattn.ops.windows import Size

from .timing import time_in_turns

Call = Callable[..., Tensor]
_WINDOW = 7
_NARROW = 28  # largest side of a map whose stripes are as wide as windows
_SIDES = (3, 5, 7, 9)  # of the kernels of the heads of SMT
_EXPANSION = 2  # of its channels


class KernelRow(NamedTuple):
    """One implementation of one operation on one map.

    Attributes:
        operation, impl: Names of the table of implementations.
        shape: Of the map: B, H, W, channels.
        mode: ``'forward'``, or ``'training'`` for forward and backward.
        seconds: Of one call, the median of the rounds.
        moved: Bytes of the inputs and the result; in training three times
            those: once more the inputs, and the gradients of both.
        of_copy: ``moved`` over the seconds, over the bandwidth of a copy.
        error: Of the result, against the definition in float64, over that of
            the definition in the same dtype; root mean squares. None for an
            order of tokens.
    """

    operation: str
    impl: str
    shape: tuple[int, ...]
    mode: str
    seconds: float
    moved: int
    of_copy: float
    error: float | None


class _Case(NamedTuple):
    operation: str
    call: Call  # takes the tensors and impl
    tensors: list[Tensor]  # the map first
    shape: tuple[int, ...]
    # An order of tokens has no gradient, and some are for inference.
    modes: tuple[str, ...] = ('forward', 'training')


def measure_kernels(
    batch: int,
    size: Size,
    num_heads: int,
    device: torch.device,
    dtype: torch.dtype,
    bandwidth: float,
    rounds: int = 5,
    report: Callable[[str], None] = lambda line: None,
) -> list[KernelRow]:
    """Time all implementations that can run, in turns.

    Args:
        batch: Images.
        size: Height and width of the map, in tokens.
        num_heads: Heads of 32 channels each.
        device: Where.
        dtype: Of the maps.
        bandwidth: Bytes per second that a copy reads and writes.
        rounds: Measurements of each. Defaults to 5.
        report: Takes a line of progress, and why an implementation cannot
            run.
    """
    rows = []
    for case in _cases(batch, size, num_heads, device, dtype):
        found = {}
        for row in list_implementations():
            if row.operation != case.operation:
                continue
            report(f'{case.operation}, {row.name}')
            try:
                with torch.no_grad():
                    found[row.name] = case.call(*case.tensors, impl=row.name)
            except RuntimeError as error:
                report(f'left out: {error}')
        errors = _errors(case, found)
        for mode in case.modes:
            rows += _time(case, found, errors, mode, bandwidth, rounds)
    return rows


def _time(
    case: _Case,
    found: dict[str, Tensor],
    errors: dict[str, float | None],
    mode: str,
    bandwidth: float,
    rounds: int,
) -> Iterator[KernelRow]:
    tensors = case.tensors
    if mode == 'training':
        tensors = [x.detach().requires_grad_() for x in tensors]

    def step(impl: str) -> Callable[[], Any]:
        weights = torch.ones_like(found[impl])

        def run() -> None:
            if mode == 'training':
                out = case.call(*tensors, impl=impl)
                torch.autograd.grad(out, tensors, weights, allow_unused=True)
                return
            with torch.no_grad():
                case.call(*tensors, impl=impl)

        return run

    laps = time_in_turns({impl: step(impl) for impl in found}, rounds, 0.02)
    for impl, out in found.items():
        seconds = sorted(lap.seconds for lap in laps[impl])[rounds // 2]
        moved = sum(x.nbytes for x in tensors) + out.nbytes
        moved *= 3 if mode == 'training' else 1
        of_copy = moved / seconds / bandwidth
        yield KernelRow(
            *(case.operation, impl, case.shape, mode, seconds, moved),
            *(of_copy, errors[impl]),
        )


def _errors(case: _Case, found: dict[str, Tensor]) -> dict[str, float | None]:
    """Of a few images, which are enough, and fit in float64."""
    if not next(iter(found.values())).is_floating_point():
        return dict.fromkeys(found)
    few = [case.tensors[0][:2], *case.tensors[1:]]
    wide = [x.double() for x in few]
    with torch.no_grad():
        exact = case.call(*wide, impl='reference')

    def error(impl: str) -> float:
        with torch.no_grad():
            out = case.call(*few, impl=impl)
        return (out - exact).square().mean().sqrt().item()

    least = max(error('reference'), 1e-12)
    return {impl: error(impl) / least for impl in found}


def _cases(
    batch: int,
    size: Size,
    num_heads: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[_Case]:
    C = 32 * num_heads
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator)
        return values.to(device, dtype)

    qkv = normal(batch, *size, 3 * C)
    bias = normal(num_heads, _WINDOW**2, _WINDOW**2)
    shape = tuple(qkv.shape)
    yield _Case(
        'window_attention',
        lambda qkv, bias, impl: window_attention(
            qkv, num_heads, _WINDOW, _WINDOW // 2, bias, impl=impl
        ),
        [qkv, bias],
        shape,
    )
    even = num_heads + num_heads % 2  # heads, for both orientations
    stripes = normal(batch, *size, 3 * 32 * even)
    weight = normal(stripes.shape[-1] // 3, 1, 3, 3)
    width = 1 if min(size) > _NARROW else _WINDOW
    yield _Case(
        'cross_shaped_attention',
        lambda qkv, weight, impl: cross_shaped_attention(
            qkv, even, width, weight, impl=impl
        ),
        [stripes, weight],
        tuple(stripes.shape),
    )
    tokens = qkv.flatten(1, 2)
    q = tokens[..., :C].unflatten(-1, (num_heads, -1)).transpose(1, 2)
    yield _Case(
        'balanced_clusters',
        lambda q, impl: balanced_clusters(q, impl=impl),
        [q],
        shape,
        ('forward',),
    )
    order = balanced_clusters(q, impl='reference')  # (B, h, N)
    yield _Case(
        'cluster_attention',
        lambda tokens, impl: cluster_attention(
            tokens, order[: len(tokens)], impl=impl
        ),
        [tokens],
        shape,
    )
    c = C // len(_SIDES)
    kernels = [normal(c, 1, side, side) for side in _SIDES]
    biases = [normal(c) for _ in _SIDES]
    matrices = [normal(_EXPANSION * C, len(_SIDES)), normal(_EXPANSION * C)]
    x = normal(batch, *size, C)

    def convolve(call: Call, x: Tensor, *args: Tensor, impl: str) -> Tensor:
        own = [[t.to(x.dtype) for t in part] for part in (kernels, biases)]
        return call(x, *own, *args, impl=impl)

    yield _Case(
        'mixed_convolution',
        partial(convolve, mixed_convolution),
        [x],
        tuple(x.shape),
    )
    yield _Case(
        'mixed_expansion',
        partial(convolve, mixed_expansion),
        [x, *matrices],
        tuple(x.shape),
        ('forward',),
    )


def to_markdown(rows: Sequence[KernelRow]) -> str:
    """A table of the rows."""
    lines = [
        '| operation | map | implementation | mode | ms | of copy | error |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        shape = ' x '.join(map(str, row.shape))
        error = '' if row.error is None else f'{row.error:.2f}'
        lines.append(
            f'| {row.operation} | {shape} | {row.impl} | {row.mode} | '
            f'{1e3 * row.seconds:.3f} | {row.of_copy:.1%} | {error} |'
        )
    return '\n'.join(lines) + '\n'
