"""Time several calls in turns, so that all meet the same machine."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(values) == 1:
        return (values[0],) * 3
    return tuple(statistics.quantiles(values, n=4, method='inclusive'))


def time_in_turns(
    calls: dict[Hashable, Callable[[], Any]],
    rounds: int,
    min_seconds: float = 0.0,
    pause: float = 0.0,
    report: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Hashable, list[float]]:
    """Time every call once a round; each round starts with another one.

    Args:
        calls: What to time, by key. Each runs twice before.
        rounds: Number of timings of each call.
        min_seconds: A shorter call is repeated within a round, without
            waiting for the GPU in between, until it takes about as long; the
            timing is the mean of the repeats. Defaults to 0: no repeats.
        pause: Seconds to wait before each timing: threads of another runtime
            need a moment until they sleep. Defaults to 0.
        report: Takes a line of progress for each round.
        clock: Tells seconds. Defaults to ``time.perf_counter``.

    Returns:
        Seconds of one call in each round, by key.
    """
    repeats = {}
    for key, call in calls.items():
        call()
        once = _time(call, 1, clock)
        repeats[key] = max(1, math.ceil(min_seconds / max(once, 1e-9)))
    keys = list(calls)
    timings = {key: [] for key in keys}
    start = time.perf_counter()
    for number in range(rounds):
        spent = time.perf_counter() - start
        report(f'round {number + 1} of {rounds}, {spent:.0f} s so far')
        first = number % len(keys)
        for key in keys[first:] + keys[:first]:
            time.sleep(pause)
            timings[key].append(_time(calls[key], repeats[key], clock))
    return timings


def _time(
    call: Callable[[], Any], repeats: int, clock: Callable[[], float]
) -> float:
    wait = torch.cuda.synchronize if torch.cuda.is_available() else int
    wait()
    start = clock()
    for _ in range(repeats):
        call()
    wait()
    return (clock() - start) / repeats
