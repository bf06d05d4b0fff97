"""A usage error ends a command with one message and exit status 2."""

import pickle
import sys

import pytest

from mmattn.engine import usage


@pytest.fixture(autouse=True)
def name(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tools/train.py'])
    monkeypatch.delenv('LOCAL_RANK', raising=False)


def fail():
    raise usage.UsageError('no such thing')


def test_message_and_status(capsys):
    with pytest.raises(SystemExit) as ended:
        usage.run_command(fail)
    assert ended.value.code == 2
    assert capsys.readouterr().err == 'train.py: error: no such thing\n'


def test_one_of_several_processes_speaks(monkeypatch, capsys):
    waited = []
    monkeypatch.setattr(usage.time, 'sleep', waited.append)
    monkeypatch.setenv('LOCAL_RANK', '1')
    with pytest.raises(SystemExit) as ended:
        usage.run_command(fail)
    assert ended.value.code == 2
    assert capsys.readouterr().err == ''
    assert waited and waited[0] >= 10


def test_code_in_a_checkpoint(capsys):
    def load():
        raise pickle.UnpicklingError('Weights only load failed')

    with pytest.raises(SystemExit) as ended:
        usage.run_command(load)
    assert ended.value.code == 2
    assert 'the checkpoint wants to run code' in capsys.readouterr().err


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        usage.run_command(lambda: 1 / 0)
