"""Compiling, and which compiled libraries are loaded."""

import os
import subprocess
import sys
import time

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
    written = first.stat().st_mtime_ns
    assert load(new_library()) == 2.5
    assert files(cache) == [first]
    change(sources)
    assert load(new_library()) == -2.5
    assert len(files(cache)) == 2
    assert first.stat().st_mtime_ns == written


def test_folder_and_file_are_private(new_library, cache):
    load(new_library())
    (file,) = files(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o077 == 0
    assert [x.name for x in cache.iterdir()] == [file.name]


def truncate(file):
    file.write_bytes(file.read_bytes()[:5000])


def empty(file):
    file.write_bytes(b'')


def flip_a_byte(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def let_others_write(file):
    file.chmod(0o777)


def link_elsewhere(file):
    target = file.with_name('elsewhere')
    file.rename(target)
    file.symlink_to(target)


@pytest.mark.parametrize(
    'damage', [truncate, empty, flip_a_byte, let_others_write, link_elsewhere]
)
def test_a_damaged_file_is_compiled_again(new_library, cache, damage):
    library = new_library()
    # As another process would: here, nothing is loaded yet.
    file = build.build_library(library.name, library.folder, library.include)
    damage(file)
    assert not build._is_intact(file)
    assert load(library) == 2.5
    (file,) = files(cache)
    assert build._is_intact(file)


def test_a_truncated_library_does_not_crash_a_new_process(new_library, cache):
    """Reading behind the end of a mapped file is a bus error."""
    library = new_library()
    truncate(
        build.build_library(library.name, library.folder, library.include)
    )
    code = (
        'from pathlib import Path\n'
        'from mmattn.ops._native import Library\n'
        f'library = Library("own", Path({str(library.folder)!r}), '
        f'[Path({build.__file__!r}).parent])\n'
        'print(library.why_not())\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.stdout == 'None\n', done.stderr


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


def test_a_compiler_that_hangs_is_killed_with_its_children(
    new_library, compiler_script, monkeypatch, tmp_path
):
    monkeypatch.setattr(build, '_MAX_SECONDS', 1)
    compiler_script(f'sleep 300 & echo $! > {tmp_path}/child; wait')
    assert 'more than 1 s' in new_library().why_not()
    child = int((tmp_path / 'child').read_text())
    for _ in range(100):
        try:
            state = open(f'/proc/{child}/stat').read().split()[2]
        except FileNotFoundError:
            return
        if state == 'Z':  # its new parent has not reaped it yet
            return
        time.sleep(0.1)
    pytest.fail('the child of the compiler still runs')


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
        assert build.find_compiler() == (value.split() or ['g++'])
    else:
        with pytest.raises(build.BuildError) as error:
            build.find_compiler()
        assert repr(missing) in str(error.value)
        assert 'apt install g++' in str(error.value)
