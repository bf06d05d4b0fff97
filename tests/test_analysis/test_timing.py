"""Calls that take turns, medians and quartiles."""

import time

import pytest

from mmattn.analysis.timing import quartiles, time_in_turns


def test_each_round_starts_with_another_call():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'abc'}
    timings = time_in_turns(calls, rounds=3)
    assert ''.join(order) == 'aabbcc' + 'abc' + 'bca' + 'cab'
    assert {name: len(own) for name, own in timings.items()} == dict(
        a=3, b=3, c=3
    )


def test_a_timing_is_what_one_call_takes():
    calls = dict(sleep=lambda: time.sleep(0.01))
    for seconds in time_in_turns(calls, 2, min_seconds=0.03)['sleep']:
        assert 0.01 <= seconds < 0.1
    cpu = time_in_turns(calls, 2, clock=time.process_time)
    assert max(cpu['sleep']) < 0.01


def test_short_calls_are_repeated_within_a_round():
    number = [0]

    def call():
        number[0] += 1
        time.sleep(0.002)

    time_in_turns({'call': call}, rounds=2, min_seconds=0.02)
    assert 2 + 2 * 2 <= number[0] <= 2 + 2 * 10


def test_a_pause_is_not_timed():
    start = time.perf_counter()
    (seconds,) = time_in_turns({'call': int}, 1, pause=0.02)['call']
    assert seconds < 0.02 <= time.perf_counter() - start


def test_progress():
    lines = []
    time_in_turns({'call': int}, rounds=2, report=lines.append)
    assert [line.split(',')[0] for line in lines] == [
        'round 1 of 2',
        'round 2 of 2',
    ]


@pytest.mark.parametrize(
    'values, expected', [([4, 1, 2, 3, 5], (2, 3, 4)), ([3.0], (3, 3, 3))]
)
def test_quartiles(values, expected):
    assert quartiles(values) == expected
