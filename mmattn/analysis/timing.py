"""Seconds of several calls that take turns in one process."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

_QUIET_SECONDS = 10.0


class Lap(NamedTuple):
    """Seconds of one call.

    Attributes:
        seconds: On the clock.
        cpu_seconds: Of all threads of this process on the CPU. Other
            processes disturb this less than what the clock says.
    """

    seconds: float
    cpu_seconds: float


class Spread(NamedTuple):
    """The middle of some measurements, and the quartiles around it."""

    median: float
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """Median and quartiles; those of a single value are that value."""
    if len(values) == 1:
        return Spread(*3 * tuple(values))
    low, median, high = statistics.quantiles(values, n=4, method='inclusive')
    return Spread(median, low, high)


def spread_of_ratios(
    values: Sequence[float], others: Sequence[float]
) -> Spread:
    """How many times the others the values are, pair by pair.

    What slows down a whole round slows down both of a pair.
    """
    return spread_of([value / other for value, other in zip(values, others)])


def time_in_turns(
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    min_seconds: float = 0.0,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, list[Lap]]:
    """Time every call once a round, so that all meet the same machine.

    Each call first runs twice without being counted. The first of a round
    changes from round to round.

    Args:
        calls: What to time, by name.
        rounds: How often, from 1 up.
        min_seconds: A call shorter than this is repeated, without waiting
            for the GPU in between, until it has taken about as long; what
            counts is the mean of the repeats. Defaults to 0: once.
        report: Takes a line of progress: one for each round, and what runs
            where the last is ten seconds old.

    Returns:
        The laps of each call, one a round, by name.

    Raises:
        ValueError: If ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(
            f'time_in_turns expects rounds from 1 up, got {rounds}'
        )
    tell = _Progress(report)
    repeats, round_seconds = {}, 0.0
    for name, call in calls.items():
        tell.if_long_ago(f'warming up {name}')
        call()
        once = _time(call, 1).seconds
        repeats[name] = max(1, math.ceil(min_seconds / max(once, 1e-9)))
        round_seconds += once * repeats[name]
    names = list(calls)
    laps = {name: [] for name in names}
    start = time.perf_counter()
    for number in range(rounds):
        if number > 0:
            round_seconds = (time.perf_counter() - start) / number
        left = round_seconds * (rounds - number)
        now = f'round {number + 1} of {rounds}'
        tell(f'{now}, about {left:.0f} s left')
        first = number % len(names)
        for name in names[first:] + names[:first]:
            tell.if_long_ago(f'{now}, {name}')
            laps[name].append(_time(calls[name], repeats[name]))
    return laps


class _Progress:
    """Passes lines on; some only if the last one was long ago."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._told = time.perf_counter()

    def __call__(self, line: str) -> None:
        self._told = time.perf_counter()
        self._report(line)

    def if_long_ago(self, line: str) -> None:
        if time.perf_counter() - self._told >= _QUIET_SECONDS:
            self(line)


def _time(call: Callable[[], Any], repeats: int) -> Lap:
    _synchronize()
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    _synchronize()
    return Lap(
        (time.perf_counter() - start) / repeats,
        (time.process_time() - cpu_start) / repeats,
    )


def _synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
