"""The table of implementations, and the choice among them.

Every operation has an implementation called ``'reference'``, plain PyTorch,
which defines it. Others compute the same faster where they can run. The
argument ``impl`` of an operation names one, or is ``'auto'``: the first that
can run on the given tensors, in the order of priority. A named implementation
that cannot run is an error; nothing falls back silently.
:func:`force_implementation` changes what ``'auto'`` means.

A kernel has two entries. Eager mode calls its function, an autograd function;
``torch.compile`` gets its operator, whose insides it cannot see. What follows
single operations of PyTorch gets implementations that consist of them.
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
        name: Name that ``impl`` takes, such as ``'sdpa'``.
        function: Takes what the operation takes, without ``impl``.
        requires: What it requires, in words.
        priority: ``'auto'`` takes the highest that can run.
        devices: Device types it runs on; None for all.
        is_available: Called without arguments: whether it can run on this
            machine.
        why_not: Called with the operation's arguments: why it cannot run on
            them, or None. It may look at shapes, dtypes and devices, never at
            values. None if it always can.
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

    Args:
        operation: Name of the operation.
        name: Name of the implementation; ``'auto'`` for the best that can
            run, as at the start.

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
    """Let ``'auto'`` mean these implementations for a while.

    Args:
        choices: The name of an implementation for each operation.

    Raises:
        ValueError: As :func:`force_implementation`.
    """
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
    """Let ``'auto'`` mean the reference of every operation for a while.

    For tools that look at what runs rather than how fast. An implementation
    that is named still runs.
    """
    with forced_implementations(dict.fromkeys(_TABLE, 'reference')):
        yield


@contextmanager
def watch_choices(
    callback: Callable[[Implementation], None],
) -> Iterator[None]:
    """Call back with each implementation that is chosen inside the block.

    Compiled code chooses once, while it is traced, and calls nothing back.
    """
    _WATCHERS.append(callback)
    try:
        yield
    finally:
        _WATCHERS.remove(callback)


def choose_implementation(
    operation: str, impl: str, *args: Any
) -> Callable[..., Any]:
    """The function that computes ``operation`` on these arguments.

    Args:
        operation: Name of the operation.
        impl: Name of an implementation, or ``'auto'``.
        *args: Arguments of the operation, a tensor first.

    Raises:
        ValueError: If there is no implementation of that name.
        RuntimeError: If the named implementation cannot run here; the message
            says why.
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
    """What a compiler, a tracer or a transform can follow.

    A compiler gets the operator of the best implementation. Forward-mode
    differentiation would silently take an operator's derivative for zero, and
    neither it nor FLOP counters on a CPU know fused attention: transforms and
    modes get the reference.
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
