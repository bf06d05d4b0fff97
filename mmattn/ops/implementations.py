"""The table of implementations: which exist, what they need, who is chosen.

Every operation has an implementation called ``'reference'``, plain torch,
which defines it. Others compute the same, faster, where they can run. The
argument ``impl`` of an operation names one, or is ``'auto'``: the first of the
table, best first, that can run on the given tensors. A named implementation
that cannot run is an error; nothing falls back in silence.
:func:`force_implementation` gives ``'auto'`` another meaning.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .compiling import is_compiling

Reason = str | None


def _no_obstacle(*args: Any, **kwargs: Any) -> Reason:
    return None


@dataclass(frozen=True)
class Implementation:
    """One way to compute one operation.

    Attributes:
        operation: Name of the operation, such as ``'attention'``.
        name: Name that ``impl`` takes, such as ``'sdpa'``.
        function: Takes what the operation takes, without ``impl``.
        needs: What it needs, in words.
        priority: The highest that can run is what ``'auto'`` takes.
        missing: Called without arguments: why it cannot run on this machine,
            or None.
        refuses: Called with the operation's arguments: why it cannot run on
            them, or None. It may look at shapes, dtypes and devices, never at
            values.
        any_size: Whether a compiler that reads ``function`` once has read it
            for maps of all sizes.
        passed_over: Called with the reason and the operation's arguments
            where ``'auto'`` passes over it, unless a compiler looks on.
    """

    operation: str
    name: str
    function: Callable[..., Any]
    needs: str
    priority: float
    missing: Callable[[], Reason]
    refuses: Callable[..., Reason]
    any_size: bool = False
    passed_over: Callable[..., None] = _no_obstacle


_TABLE: dict[str, dict[str, Implementation]] = {}  # rows best first
_FORCED: dict[str, str] = {}
_WATCHERS: list[Callable[[Implementation], None]] = []


def register_implementation(
    operation: str,
    name: str,
    needs: str = 'torch',
    priority: float = 0,
    missing: Callable[[], Reason] = _no_obstacle,
    refuses: Callable[..., Reason] = _no_obstacle,
    any_size: bool = False,
    passed_over: Callable[..., None] = _no_obstacle,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the decorated function to the table; see :class:`Implementation`.

    The first row of an operation is its definition, ``'reference'``.

    Raises:
        TypeError: If the priority is no number.
        ValueError: If there is no such operation, or if it has an
            implementation of that name.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        _check_row(operation, name, priority)
        rows = _TABLE.get(operation, {})
        row = Implementation(
            operation,
            name,
            function,
            needs,
            priority,
            missing,
            refuses,
            any_size,
            passed_over,
        )
        # Best first, here and not in each call: compilers trace the calls.
        _TABLE[operation] = dict(
            sorted(
                (rows | {name: row}).items(),
                key=lambda item: -item[1].priority,
            )
        )
        return function

    return add


def _check_row(operation: str, name: str, priority: float) -> None:
    """Refuse a row that nobody could call or sort."""
    who = 'register_implementation'
    rows = _TABLE.get(operation)
    if rows is None and name != 'reference':
        raise ValueError(
            f'{who} expects an operation that has a definition, got '
            f'{operation!r}; there are {", ".join(sorted(_TABLE))}; an '
            "operation of your own begins with its 'reference'"
        )
    taken = ['auto', *(rows or [])]
    if name in taken:
        raise ValueError(
            f'{who} expects a new name for {operation}, got {name!r}; taken: '
            f'{", ".join(map(repr, taken))}'
        )
    is_number = isinstance(priority, (int, float))
    if not is_number or math.isnan(priority):
        raise TypeError(
            f'{who} expects a number as priority of {operation} {name!r}, got '
            f'{priority!r}'
        )


def list_implementations() -> list[Implementation]:
    """All rows of the table, by operation, best first."""
    return [
        row
        for operation in sorted(_TABLE)
        for row in _TABLE[operation].values()
    ]


def force_implementation(operation: str, name: str) -> None:
    """Let ``'auto'`` mean this implementation of an operation, everywhere.

    Args:
        operation: Name of the operation.
        name: Name of the implementation; ``'auto'`` for the best that can
            run, as at the start.

    Raises:
        ValueError: If the table does not have them.
    """
    known = {key: ['auto', *rows] for key, rows in _TABLE.items()}
    if name not in known.get(operation, []):
        raise ValueError(
            'force_implementation expects an operation and one of its '
            f'implementations, got {operation!r} and {name!r}; there are '
            f'{known.get(operation, known)}'
        )
    _FORCED[operation] = name


def forced_name(operation: str) -> str:
    """What ``'auto'`` means for an operation: a name, or ``'auto'``."""
    return _FORCED.get(operation, 'auto')


@contextmanager
def watch_choices(
    callback: Callable[[Implementation], None],
) -> Iterator[None]:
    """Have each implementation that is chosen in the block told.

    Not what a compiler has traced: it chooses once, when it traces.
    """
    _WATCHERS.append(callback)
    try:
        yield
    finally:
        _WATCHERS.remove(callback)


def where_it_exists(operation: str, impl: str) -> str:
    """``impl`` if the operation has one of that name, else ``'auto'``.

    For the other operations of a layer whose main one is told ``impl``.
    """
    return impl if impl in _TABLE[operation] else 'auto'


def choose_implementation(
    operation: str, impl: str, *args: Any, **kwargs: Any
) -> Implementation:
    """Resolve ``impl`` for a call of ``operation`` with these arguments.

    Raises:
        ValueError: If ``impl`` is not a name of the table.
        RuntimeError: If the named implementation cannot run here; the message
            says what is missing.
    """
    if impl == 'auto':
        impl = forced_name(operation)
    row = _resolve(operation, impl, *args, **kwargs)
    if not is_compiling():  # calls out of the graph would break it
        for watcher in _WATCHERS:
            watcher(row)
    return row


def _resolve(
    operation: str, impl: str, *args: Any, **kwargs: Any
) -> Implementation:
    if impl == 'auto':
        for row in _TABLE[operation].values():
            reason = row.missing() or row.refuses(*args, **kwargs)
            if not reason:
                return row
            if not is_compiling():
                row.passed_over(reason, *args, **kwargs)
        raise RuntimeError(f'{operation} has no implementation that can run')
    rows = _TABLE[operation]
    if impl not in rows:
        raise ValueError(
            f"{operation} expects impl 'auto' or one of "
            f'{sorted(rows)}, got {impl!r}'
        )
    reason = rows[impl].missing() or rows[impl].refuses(*args, **kwargs)
    if reason:
        raise RuntimeError(f'{operation} cannot run impl {impl!r}: {reason}')
    return rows[impl]


@contextmanager
def forced_implementations(choices: dict[str, str]) -> Iterator[None]:
    """Let ``'auto'`` mean these implementations for a while.

    Args:
        choices: A name for each operation, see :func:`force_implementation`.
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
def definitions_first() -> Iterator[None]:
    """Let ``'auto'`` take the definition of every operation for a while.

    For who looks at what runs, not at how fast: definitions are plain
    PyTorch. An implementation that is named still runs.
    """
    defined = [name for name, rows in _TABLE.items() if 'reference' in rows]
    with forced_implementations(dict.fromkeys(defined, 'reference')):
        yield
