"""Time several calls in turns, so that the load of the machine hits all."""

import math
import time
import timeit
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from torch.utils import benchmark


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    return tuple(np.percentile(values, (25, 50, 75)).tolist())


def time_in_turns(
    calls: dict[Hashable, Callable[[], Any]],
    rounds: int,
    min_seconds: float = 0.0,
    pause: float = 0.0,
    report: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = benchmark.timer,
) -> dict[Hashable, list[float]]:
    """Time every call once a round; each round starts with another one.

    Args:
        calls: What to time, by key. Each runs twice before.
        rounds: Number of timings of each call.
        min_seconds: A shorter call is repeated within a round until it takes
            about as long; the timing is the mean. Defaults to 0: no repeats.
        pause: Seconds to wait before each timing: threads of another runtime
            need a moment until they sleep. Defaults to 0.
        report: Called with a line of progress for each round.
        clock: Returns seconds. Defaults to one that waits for the GPU.

    Returns:
        Seconds of one call in each round, by key.
    """
    timers = {k: timeit.Timer(f, timer=clock) for k, f in calls.items()}
    repeats = {}
    for key, timer in timers.items():
        timer.timeit(1)
        once = timer.timeit(1)
        repeats[key] = max(1, math.ceil(min_seconds / max(once, 1e-9)))
    keys = list(calls)
    timings = {key: [] for key in keys}
    for number in range(rounds):
        report(f'round {number + 1} of {rounds}')
        first = number % len(keys)
        for key in keys[first:] + keys[:first]:
            time.sleep(pause)
            seconds = timers[key].timeit(repeats[key])
            timings[key].append(seconds / repeats[key])
    return timings
