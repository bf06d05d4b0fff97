"""Functions in copies of the process."""

import os
import time

from mmattn.swapping.forking import run_forked


def run_one(call, seconds):
    ((name, row),) = run_forked([('one', call)], seconds)
    assert name == 'one' and row.pop('seconds') >= 0 and row.pop('cpu') >= 0
    return row


def test_a_function_answers_hangs_or_dies():
    assert run_one(lambda: dict(status='passed'), 60) == dict(status='passed')
    start = time.monotonic()
    row = run_one(lambda: time.sleep(60), 0.2)
    assert (row['status'], row['reason']) == ('failed', 'timeout')
    assert time.monotonic() - start < 30
    assert run_one(lambda: os._exit(3), 60)['reason'] == 'crash'
    assert run_one(lambda: 1 / 0, 60)['reason'] == 'crash'


def test_answers_are_whole_however_long():
    text = 'x' * (1 << 18)  # more than a pipe holds
    assert run_one(lambda: dict(text=text), 60) == dict(text=text)


def test_some_run_at_a_time_and_each_has_its_own_limit(tmp_path):
    gate = tmp_path / 'gate'

    def wait():
        while not gate.exists():
            time.sleep(0.01)
        return dict(status='opened')

    def open_gate():
        gate.touch()
        return dict(status='open')

    # The first ends only if the second runs beside it.
    calls = [('first', wait), ('second', open_gate), ('third', dict)]
    rows = dict(run_forked(calls, 60, jobs=2))
    assert rows['first']['status'] == 'opened'
    assert set(rows) == {'first', 'second', 'third'}
    calls = [('hangs', lambda: time.sleep(60)), ('answers', dict)]
    names = [name for name, _ in run_forked(calls, 1, jobs=2)]
    assert names == ['answers', 'hangs']


def test_the_next_is_asked_for_when_there_is_room():
    asked = []

    def ask():
        for i in range(3):
            asked.append(i)
            yield str(i), dict

    runs = run_forked(ask(), 60)
    assert next(runs)[0] == '0' and asked == [0]
    assert next(runs)[0] == '1' and asked == [0, 1]
    assert [name for name, _ in runs] == ['2']
