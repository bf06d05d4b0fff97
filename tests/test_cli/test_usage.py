"""A usage error ends a command with one message and exit status 2."""

import pickle
import sys

import pytest
import torch
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


def message_of(path, capsys):
    with pytest.raises(SystemExit) as ended:
        usage.run_command(lambda: torch.load(path, weights_only=True))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_code_in_a_checkpoint(tmp_path, capsys):
    torch.save({'a': tmp_path}, tmp_path / 'a.pth')
    message = message_of(tmp_path / 'a.pth', capsys)
    assert 'the checkpoint wants to run code' in message
    assert 'WEIGHTS_ONLY' not in message


DAMAGED = 'damaged'


def test_a_page_in_place_of_a_checkpoint(tmp_path, capsys):
    page = tmp_path / 'a.pth'
    page.write_text('<!DOCTYPE html>\n<html></html>\n')
    message = message_of(page, capsys)
    assert DAMAGED in message and message.endswith('; download it again\n')
    assert 'run code' not in message


@pytest.mark.parametrize('part', [0, 0.03, 0.5, 0.99])
def test_a_legacy_checkpoint_cut_short(part, tmp_path, capsys):
    path = tmp_path / 'a.pth'
    torch.save(
        {'a': torch.zeros(99)}, path, _use_new_zipfile_serialization=False
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert DAMAGED in message_of(path, capsys)


def test_damage_elsewhere_keeps_its_traceback():
    with pytest.raises(EOFError):
        usage.run_command(lambda: pickle.loads(b''))


def test_interrupt(capsys):
    def interrupt():
        raise KeyboardInterrupt

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
