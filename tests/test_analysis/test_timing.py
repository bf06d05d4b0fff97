"""Calls that take turns, medians and quartiles."""

import time

import pytest

from mmattn.analysis import timing
from mmattn.analysis.timing import (
    spread_of,
    spread_of_ratios,
    time_in_turns,
)


def test_the_first_of_a_round_changes():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'abc'}
    laps = time_in_turns(calls, rounds=3)
    warm, rounds = ''.join(order[:6]), ''.join(order[6:])
    assert warm == 'aabbcc'
    assert rounds == 'abcbcacab'
    assert {name: len(values) for name, values in laps.items()} == dict(
        a=3, b=3, c=3
    )


def test_a_lap_is_what_one_call_takes():
    calls = dict(
        sleeps=lambda: time.sleep(0.01), works=lambda: sum(range(300_000))
    )
    laps = time_in_turns(calls, rounds=2, min_seconds=0.03)
    for lap in laps['sleeps']:
        assert 0.01 <= lap.seconds < 0.1
        assert lap.cpu_seconds < lap.seconds / 2
    for lap in laps['works']:
        assert 0 < lap.cpu_seconds < 1.5 * lap.seconds


def test_short_calls_are_repeated_within_a_round():
    number = [0]

    def call():
        number[0] += 1
        time.sleep(0.002)

    time_in_turns({'call': call}, rounds=2, min_seconds=0.02)
    assert 2 + 2 * 4 <= number[0] <= 2 + 2 * 10


def test_progress_tells_round_and_time():
    lines = []
    time_in_turns({'call': lambda: None}, rounds=2, report=lines.append)
    assert [line.split(',')[0] for line in lines] == [
        'round 1 of 2',
        'round 2 of 2',
    ]
    assert lines[1].endswith('about 0 s left')


def test_progress_names_what_runs_where_it_takes_long(monkeypatch):
    monkeypatch.setattr(timing, '_QUIET_SECONDS', 0)
    lines = []
    calls = dict.fromkeys('ab', lambda: None)
    time_in_turns(calls, rounds=2, report=lines.append)
    assert lines == [
        'warming up a',
        'warming up b',
        'round 1 of 2, about 0 s left',
        'round 1 of 2, a',
        'round 1 of 2, b',
        'round 2 of 2, about 0 s left',
        'round 2 of 2, b',
        'round 2 of 2, a',
    ]


def test_spreads():
    assert spread_of([4, 1, 2, 3, 5]) == (3, 2, 4)
    # Both of a pair are slowed down together: the ratio does not move.
    ratio = spread_of_ratios([2, 20, 4], [1, 10, 2])
    assert ratio == (2, 2, 2)


def test_one_round_has_no_spread():
    assert spread_of([3.0]) == (3, 3, 3)
    with pytest.raises(ValueError, match='rounds from 1 up, got 0'):
        time_in_turns({'call': lambda: None}, rounds=0)
