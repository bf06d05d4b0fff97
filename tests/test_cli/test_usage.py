"""A usage error ends a command with one message and exit status 2."""

import sys

import pytest
from mmengine.registry import MODELS

from mmattn.cli import usage


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


def test_a_message_cannot_control_the_terminal(capsys):
    def fail():
        raise usage.UsageError('key \x1b[2J\n\x07')

    with pytest.raises(SystemExit):
        usage.run_command(fail)
    err = capsys.readouterr().err
    assert err == 'train.py: error: key \\x1b[2J\n\\x07\n'


@pytest.mark.parametrize('is_replaced', [True, False])
def test_interrupt(is_replaced, capsys, monkeypatch):
    monkeypatch.setattr(usage.signal, 'signal', lambda *_: None)

    def interrupt():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if is_replaced:  # as mmengine does when it formats a config
                raise SyntaxError('failed to format') from None
            raise

    with pytest.raises(SystemExit) as ended:
        usage.run_command(interrupt)
    assert ended.value.code == 130
    assert capsys.readouterr().err == 'train.py: interrupted\n'


def build_nothing():
    MODELS.build(dict(type='NoSuchModel'))


def test_a_mistake_in_a_config(capsys):
    with pytest.raises(SystemExit) as ended:
        usage.run_command(build_nothing)
    assert ended.value.code == 2
    assert 'NoSuchModel' in capsys.readouterr().err


def test_a_mistake_in_a_config_with_its_traceback(monkeypatch):
    monkeypatch.setenv('MMATTN_TRACEBACK', '1')
    with pytest.raises(KeyError):
        usage.run_command(build_nothing)


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        usage.run_command(lambda: 1 / 0)
