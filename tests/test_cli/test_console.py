import os
import sys

import pytest

from mmattn.cli.console import output_to_file


def test_everything_goes_to_the_file_but_the_terminal_stream(tmp_path, capfd):
    log = tmp_path / 'log.txt'
    with output_to_file(log) as terminal:
        os.write(1, b'from C\n')
        os.write(2, b'warning\n')
        print('for a person', file=terminal)
    os.write(1, b'after\n')
    out, err = capfd.readouterr()
    assert out == 'for a person\nafter\n'
    assert err == ''
    assert log.read_text() == 'from C\nwarning\n'


def test_an_error_finds_the_terminal_restored(tmp_path, capfd):
    with pytest.raises(RuntimeError, match='boom'):
        with output_to_file(tmp_path / 'log.txt'):
            raise RuntimeError('boom')
    print('still here', file=sys.stderr)
    os.write(2, b'and here\n')
    assert 'and here' in capfd.readouterr().err


def test_no_descriptor_is_left_open(tmp_path):
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(3):
        with output_to_file(tmp_path / 'log.txt'):
            pass
    assert len(os.listdir('/proc/self/fd')) == before
