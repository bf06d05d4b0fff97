"""The table of implementations, and the choice among them.

Every operation has a reference implementation, ``'reference'``, in plain
PyTorch; others compute the same faster. The argument ``impl`` of an operation
names one, or is ``'auto'``: the implementation of highest priority that can
run on the given tensors. A named implementation that cannot run is an error;
there are no silent fallbacks. :func:`force_implementation` changes what
``'auto'`` means.

Eager mode calls the function of a kernel, an autograd function;
``torch.compile`` gets its custom operator. Tracers, transforms and modes that
follow single operations of PyTorch get implementations that consist of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .tracing import (
    in_dispatch_mode,
    in_functorch,
    is_compiling,
    is_exporting,
    is_observed,
)

_HAS_CUSTOM_OPS = hasattr(torch.library, 'custom_op')


@dataclass(frozen=True)
class Implementation:
    """One way to compute one operation.

    Attributes:
        operation: Name of the operation, such as ``'attention'``.
        name: Name for ``impl``, such as ``'sdpa'``.
        function: Called with the arguments of the operation except ``impl``.
        requires: Requirements, for messages.
        priority: ``'auto'`` takes the highest that can run.
        devices: Supported device types; None for all.
        is_available: Returns whether it can run on this machine.
        why_not: Returns why it cannot run on the operation's arguments, or
            None. It may read shapes, dtypes and devices, never values. None
            if it always can.
        is_kernel: Whether it is more than operations of PyTorch.
        operator: For kernels: what ``torch.compile`` calls instead of the
            function, if there is one.
    """

    operation: str
    name: str
    function: Callable[..., Any]
    requires: str = 'torch'
    priority: float = 0
    devices: tuple[str, ...] | None = None
    is_available: Callable[[], bool] = lambda: True
    why_not: Callable[..., str | None] | None = None
    is_kernel: bool = False
    operator: Callable[..., Any] | None = None


_TABLE: dict[str, dict[str, Implementation]] = {}  # in order of priority
_BY_DEVICE: dict[tuple[str, str], tuple[Implementation, ...]] = {}
_FORCED: dict[str, str] = {}
_WATCHERS: list[Callable[[Implementation], None]] = []


def register_implementation(
    operation: str, name: str, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the decorated function to the table.

    The first implementation of an operation is its ``'reference'``.

    Args:
        operation: Name of the operation.
        name: New name, for ``impl``.
        **options: Further fields of :class:`Implementation`. Without
            ``why_not`` it can run wherever ``is_available()``.

    Raises:
        ValueError: If the operation does not exist or the name is taken.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        known = _TABLE.get(operation, {})
        if not known and name != 'reference':
            raise ValueError(
                f'unknown operation {operation!r}; there are '
                f'{", ".join(sorted(_TABLE))}; the first implementation of a '
                "new operation is its 'reference'"
            )
        if name in ('auto', *known):
            raise ValueError(
                f'{operation} already has an implementation {name!r}; taken '
                f'names: {", ".join(("auto", *known))}'
            )
        is_available = options.get('is_available')
        if is_available is not None and options.get('why_not') is None:
            options['why_not'] = lambda *args: (
                None if is_available() else f'it requires {new.requires}'
            )
        new = Implementation(operation, name, function, **options)
        rows = sorted((*known.values(), new), key=lambda x: -x.priority)
        _TABLE[operation] = {x.name: x for x in rows}
        # Ahead of the calls: compilers would guard against what calls change.
        devices = {device for x in rows for device in x.devices or ()}
        for device in (*devices, 'other'):
            _BY_DEVICE[operation, device] = tuple(
                x for x in rows if x.devices is None or device in x.devices
            )
        return function

    return add


def list_implementations() -> list[Implementation]:
    """All implementations, by operation and in order of priority."""
    return [
        implementation
        for operation in sorted(_TABLE)
        for implementation in _TABLE[operation].values()
    ]


def find_implementation(operation: str, name: str) -> Implementation:
    """The implementation of that name.

    Raises:
        ValueError: If there is none.
    """
    try:
        return _TABLE[operation][name]
    except KeyError:
        known = ', '.join(map(repr, _TABLE.get(operation, [])))
        raise ValueError(
            f'{operation} has no implementation {name!r}; impl must be '
            f"'auto' or one of {known}"
        ) from None


def force_implementation(operation: str, name: str) -> None:
    """Let ``'auto'`` mean this implementation of an operation, everywhere.

    The name ``'auto'`` restores the default.

    Raises:
        ValueError: If there is no such operation or implementation.
    """
    if operation not in _TABLE:
        raise ValueError(
            f'unknown operation {operation!r}; there are '
            f'{", ".join(sorted(_TABLE))}'
        )
    if name != 'auto':
        find_implementation(operation, name)
    _FORCED[operation] = name


@contextmanager
def forced_implementations(choices: dict[str, str]) -> Iterator[None]:
    """Apply :func:`force_implementation` to operations inside the block."""
    before = dict(_FORCED)
    try:
        for operation, name in choices.items():
            force_implementation(operation, name)
        yield
    finally:
        _FORCED.clear()
        _FORCED.update(before)


@contextmanager
def reference_only() -> Iterator[None]:
    """Let ``'auto'`` mean the reference of every operation inside the block.

    A named implementation still runs.
    """
    with forced_implementations(dict.fromkeys(_TABLE, 'reference')):
        yield


@contextmanager
def watch_choices(
    callback: Callable[[Implementation], None],
) -> Iterator[None]:
    """Call back with each implementation that eager mode chooses."""
    _WATCHERS.append(callback)
    try:
        yield
    finally:
        _WATCHERS.remove(callback)


def choose_implementation(
    operation: str, impl: str, *args: Any
) -> Callable[..., Any]:
    """The function that computes ``operation`` on these arguments.

    Raises:
        ValueError: If there is no implementation of that name.
        RuntimeError: If the named implementation cannot run on the arguments.
    """
    if impl == 'auto' and _FORCED:
        impl = _FORCED.get(operation, 'auto')
    candidates = _BY_DEVICE.get((operation, args[0].device.type))
    if candidates is None:
        candidates = _BY_DEVICE[operation, 'other']
    if is_observed():
        return _choose_for_tracer(operation, impl, candidates, args)
    if impl == 'auto':
        chosen = _first_runnable(candidates, args)
    else:
        chosen = _find_runnable(operation, impl, args)
    for callback in _WATCHERS:
        callback(chosen)
    return chosen.function


def _first_runnable(
    candidates: Sequence[Implementation], args: tuple
) -> Implementation:
    """The best candidate; the reference runs on all tensors."""
    for candidate in candidates:
        if candidate.why_not is None or candidate.why_not(*args) is None:
            return candidate
    raise RuntimeError(f'no implementation can run: {candidates}')


def _find_runnable(operation: str, name: str, args: tuple) -> Implementation:
    """The named implementation; an error if it cannot run."""
    named = find_implementation(operation, name)
    x = args[0]
    reason = None
    if named.devices is not None and x.device.type not in named.devices:
        reason = f'it runs on {" or ".join(named.devices)}'
    elif named.why_not is not None:
        reason = named.why_not(*args)
    if reason is None:
        return named
    raise RuntimeError(
        f'{operation} cannot run impl {name!r} on a {x.dtype} tensor on '
        f'{x.device}: {reason}'
    )


def _choose_for_tracer(
    operation: str,
    impl: str,
    candidates: tuple[Implementation, ...],
    args: tuple,
) -> Callable[..., Any]:
    """Choose what a compiler, a tracer or a transform can follow.

    Compilers get the operator of the best implementation. Transforms and
    modes get the reference: forward-mode differentiation silently treats the
    derivative of an operator as zero, and neither it nor FLOP counters on a
    CPU support fused attention.
    """
    is_compiler = _HAS_CUSTOM_OPS and is_compiling() and not is_exporting()
    if impl != 'auto':
        chosen = _find_runnable(operation, impl, args)
        if chosen.is_kernel and not is_compiler:
            raise RuntimeError(
                f'{operation} cannot run impl {impl!r}: torch.export, '
                'torch.jit.trace, torch.func, forward-mode differentiation, '
                'dispatch modes (and torch.compile before torch 2.4) need '
                'operations of PyTorch'
            )
    elif in_functorch() or (not is_compiling() and in_dispatch_mode()):
        chosen = find_implementation(operation, 'reference')
    else:
        if not is_compiler:
            candidates = [x for x in candidates if not x.is_kernel]
        chosen = _first_runnable(candidates, args)
    if not is_compiling():  # a call out of the graph would break it
        for callback in _WATCHERS:
            callback(chosen)
    return chosen.operator or chosen.function
