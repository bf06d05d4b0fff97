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


def compile_only(library):
    """Compile as a process does that has ended since."""
    return build.build_library(library.name, library.folder, library.include)


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
def test_a_file_that_is_not_as_compiled_is_compiled_again(
    new_library, cache, damage
):
    file = compile_only(new_library())
    damage(file)
    assert not build._is_intact(file)
    assert load(new_library()) == 2.5
    (file,) = files(cache)
    assert build._is_intact(file)


def test_a_truncated_library_does_not_crash_a_new_process(new_library, cache):
    """One is mapped by its pages: reading behind its end is a bus error."""
    truncate(compile_only(new_library()))
    code = (
        'from pathlib import Path\n'
        'from mmattn.ops._native import Library\n'
        f'library = Library("own", Path({str(new_library().folder)!r}), '
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
    assert 'chmod go-w' in new_library().why_not()
    cache.chmod(0o700)
    assert load(new_library()) == 2.5


def test_a_folder_behind_a_link_is_of_no_use(new_library, cache, tmp_path):
    cache.parent.mkdir(parents=True)
    cache.symlink_to(tmp_path)
    assert 'link' in new_library().why_not()


def test_a_folder_of_another_user_is_of_no_use(
    new_library, cache, monkeypatch
):
    load(new_library())
    user = os.geteuid() + 1
    monkeypatch.setattr(build.os, 'geteuid', lambda: user)
    assert 'another user' in new_library().why_not()


def test_a_cache_that_cannot_be_written(
    new_library, sources, cache, monkeypatch
):
    load(new_library())

    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(build.tempfile, 'TemporaryDirectory', refuse)
    monkeypatch.setattr(build.os, 'utime', refuse)
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


def test_a_compiler_that_hangs_is_ended_with_its_children(
    new_library, compiler_script, monkeypatch, tmp_path
):
    monkeypatch.setattr(build, '_MOST_SECONDS', 1)
    compiler_script(f'sleep 300 & echo $! > {tmp_path}/child; wait')
    start = time.monotonic()
    assert 'more than 1 s' in new_library().why_not()
    assert time.monotonic() - start < 30
    child = int((tmp_path / 'child').read_text())
    for _ in range(100):
        try:
            state = open(f'/proc/{child}/stat').read().split()[2]
        except FileNotFoundError:
            return
        if state == 'Z':  # ended; its new parent has not looked yet
            return
        time.sleep(0.1)
    pytest.fail('the child of the compiler still runs')


def test_a_compiler_that_reads_its_input_gets_none(
    new_library, compiler_script
):
    compiler_script('cat; exit 3')
    assert 'compiler failed' in new_library().why_not()


def test_libraries_that_nobody_loads_are_removed(new_library, sources, cache):
    load(new_library())
    (used,) = files(cache)
    unused, fresh, other = (
        used.with_name(name) for name in ('old.so', 'new.so', 'notes')
    )
    left = cache / 'build-left'
    for file in (unused, fresh, other):
        file.write_bytes(b'')
    left.mkdir()
    long_ago = time.time() - 31 * 24 * 3600
    for path in (used, unused, other, left):
        os.utime(path, (long_ago, long_ago))
    load(new_library())  # loads, compiles nothing
    assert used.stat().st_mtime > long_ago + 1 and unused.exists()
    change(sources)
    assert load(new_library()) == -2.5
    assert not unused.exists() and not left.exists()
    assert {used, fresh} < set(files(cache)) and other.exists()


@pytest.mark.parametrize(
    'value, missing',
    [('no-g++ -v', 'no-g++ -v'), ("'", "'"), (' ', None), ('g++ -g0', None)],
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
