"""Functions in forked processes."""

import os
import time

from forking import run_forked


def run_one(call, seconds):
    ((name, row),) = run_forked([('one', call)], seconds)
    assert name == 'one' and row.pop('seconds') >= 0 and row.pop('cpu') >= 0
    return row


def test_results_timeouts_and_crashes():
    assert run_one(lambda: dict(status='passed'), 60) == dict(status='passed')
    start = time.monotonic()
    row = run_one(lambda: time.sleep(60), 0.2)
    assert (row['status'], row['reason']) == ('failed', 'timeout')
    assert time.monotonic() - start < 30
    assert run_one(lambda: os._exit(3), 60)['reason'] == 'crash'
    assert run_one(lambda: 1 / 0, 60)['reason'] == 'crash'


def test_long_results_arrive_complete():
    text = 'x' * (1 << 18)  # more than a pipe holds
    assert run_one(lambda: dict(text=text), 60) == dict(text=text)


def test_jobs_run_in_parallel_with_their_own_limits(tmp_path):
    gate = tmp_path / 'gate'

    def wait():
        while not gate.exists():
            time.sleep(0.01)
        return dict(status='opened')

    def open_gate():
        gate.touch()
        return dict(status='open')

    # The first only ends if the second runs at the same time.
    calls = [('first', wait), ('second', open_gate), ('third', dict)]
    rows = dict(run_forked(calls, 60, jobs=2))
    assert rows['first']['status'] == 'opened'
    assert set(rows) == {'first', 'second', 'third'}
    calls = [('hangs', lambda: time.sleep(60)), ('answers', dict)]
    names = [name for name, _ in run_forked(calls, 1, jobs=2)]
    assert names == ['answers', 'hangs']


def test_calls_are_consumed_lazily():
    asked = []

    def ask():
        for i in range(3):
            asked.append(i)
            yield str(i), dict

    runs = run_forked(ask(), 60)
    assert next(runs)[0] == '0' and asked == [0]
    assert next(runs)[0] == '1' and asked == [0, 1]
    assert [name for name, _ in runs] == ['2']
