"""Compiling, and which compiled libraries are loaded."""

import os

import pytest
import torch

from mmattn.ops._native import build


def load(library, value=2.5):
    """Call the function of a library; what it fills a tensor with."""
    assert library.why_not() is None
    x = torch.zeros(3)
    library.function('fill', 'tid')(x, 2, value)
    assert x[2] == 0
    return x[:2].unique().item()


def files(cache):
    return sorted(cache.glob('*.so'))


def change(sources):
    file = sources / 'fill.cpp'
    file.write_text(file.read_text().replace('value;', '-value;'))


def test_compiles_once_and_again_when_the_source_changes(
    new_library, sources, cache
):
    assert load(new_library()) == 2.5
    (first,) = files(cache)
    written = first.stat().st_ctime_ns
    assert load(new_library()) == 2.5
    assert files(cache) == [first]
    change(sources)
    assert load(new_library()) == -2.5
    assert len(files(cache)) == 2
    assert first.stat().st_ctime_ns >= written


def test_the_folder_is_private(new_library, cache):
    load(new_library())
    (file,) = files(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [x.name for x in cache.iterdir()] == [file.name]


def test_a_folder_that_others_can_write_to_is_of_no_use(new_library, cache):
    load(new_library())
    cache.chmod(0o777)
    assert str(cache) in new_library().why_not()
    cache.chmod(0o700)
    assert load(new_library()) == 2.5


def test_a_folder_of_another_user_is_of_no_use(
    new_library, cache, monkeypatch
):
    load(new_library())
    user = os.geteuid() + 1
    monkeypatch.setattr(build.os, 'geteuid', lambda: user)
    assert 'other users' in new_library().why_not()


def test_a_cache_that_cannot_be_written(
    new_library, sources, cache, monkeypatch
):
    load(new_library())

    def deny(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(build.tempfile, 'TemporaryDirectory', deny)
    assert load(new_library()) == 2.5  # what is there is read
    change(sources)
    reason = new_library().why_not()
    assert 'Permission denied' in reason and 'XDG_CACHE_HOME' in reason


def test_without_a_home(new_library, monkeypatch):
    def homeless():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setattr(build.Path, 'home', homeless)
    assert 'home directory' in new_library().why_not()


def test_a_compiler_that_fails(new_library, sources, cache):
    (sources / 'fill.cpp').write_text('no C++')
    library = new_library()
    reason = library.why_not()
    assert 'fill.cpp' in reason and 'error' in reason
    assert list(cache.iterdir()) == []
    with pytest.raises(RuntimeError, match='fill.cpp'):
        library.function('fill', 'tid')(torch.zeros(1), 1, 1.0)


def test_a_compiler_that_hangs(new_library, compiler_script, monkeypatch):
    monkeypatch.setattr(build, '_MAX_SECONDS', 1)
    compiler_script('exec sleep 300')
    assert 'more than 1 s' in new_library().why_not()


def test_a_compiler_that_reads_its_input_gets_none(
    new_library, compiler_script
):
    compiler_script('cat; exit 3')
    assert 'compiler failed' in new_library().why_not()


@pytest.mark.parametrize(
    'value, missing',
    [('no-g++ -v', 'no-g++'), (' ', None), ('g++ -g0', None)],
)
def test_named_compiler(monkeypatch, value, missing):
    monkeypatch.setenv('CXX', value)
    if missing is None:
        assert build.find_compiler() == value.split() or ['g++']
    else:
        with pytest.raises(build.BuildError) as error:
            build.find_compiler()
        assert repr(missing) in str(error.value)
        assert 'apt install g++' in str(error.value)
