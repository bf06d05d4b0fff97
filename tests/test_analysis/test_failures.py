import runpy

import pytest

from mmattn.analysis.builders import any_size
from mmattn.analysis.failures import describe_failure, find_own_frame


def fail():
    raise KeyError('stem')


def test_the_innermost_line_of_own_code_is_shown():
    with pytest.raises(KeyError) as caught:
        any_size('net', fail, {})((32, 32))
    frame = find_own_frame(caught.value)
    assert (frame.filename, frame.name) == (__file__, 'fail')
    line = fail.__code__.co_firstlineno + 1
    assert describe_failure(caught.value) == (
        f"KeyError: 'stem' ({__file__}, line {line}, in fail: raise "
        "KeyError('stem'))"
    )


def test_what_fails_in_this_package_is_not_own_code():
    with pytest.raises(TypeError) as caught:
        any_size('net', dict, {})((32, 32))
    assert find_own_frame(caught.value) is None
    assert describe_failure(caught.value) == (
        'ModelTypeError: net is expected to make a torch.nn.Module, got dict'
    )
    # Who calls this package is not the code that it was given to run.
    with pytest.raises(KeyError) as caught:
        fail()
    assert find_own_frame(caught.value) is None
    assert describe_failure(ValueError()) == 'ValueError'


@pytest.mark.parametrize('folder', ['site-packages', 'dist-packages'])
def test_what_is_installed_anywhere_is_not_own_code(folder, tmp_path):
    file = tmp_path / folder / 'library.py'
    file.parent.mkdir()
    file.write_text('def fail():\n    raise KeyError("stem")\n')
    library = runpy.run_path(str(file))
    with pytest.raises(KeyError) as caught:
        any_size('net', library['fail'], {})((32, 32))
    assert caught.traceback[-1].path == file
    assert find_own_frame(caught.value) is None
