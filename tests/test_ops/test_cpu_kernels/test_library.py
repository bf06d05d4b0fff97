import os
import subprocess
import sys
import time

import pytest
import torch

from mmattn.ops import window_attention
from mmattn.ops.cpu_kernels import library, refuse_cpp

SOURCE = """#include "simd.h"

extern "C" MMATTN_EXPORT void mmattn_fill_f32(
    float* x, mmattn::Index n, double value) {
  for (mmattn::Index i = 0; i < n; ++i) x[i] = value;
}
"""


@pytest.fixture
def own_library(tmp_path, monkeypatch):
    """Kernels of a test's own in a cache of its own."""
    sources = tmp_path / 'sources'
    sources.mkdir()
    (sources / 'fill.cpp').write_text(SOURCE)
    (sources / 'simd.h').write_bytes(
        (library._SOURCES / 'simd.h').read_bytes()
    )
    monkeypatch.setattr(library, '_SOURCES', sources)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    library._load.cache_clear()
    yield sources
    library._load.cache_clear()


def compiled(tmp_path):
    return sorted((tmp_path / 'cache/mmattn/kernels').iterdir())


def test_compiles_once_and_again_when_the_source_changes(
    own_library, tmp_path
):
    x = torch.zeros(5)
    library.call('fill', x, 3, 2.5)
    assert x.tolist() == [2.5, 2.5, 2.5, 0, 0]
    before = compiled(tmp_path)
    library._load.cache_clear()
    library.call('fill', x, 5, 1.0)
    assert compiled(tmp_path) == before and len(before) == 1
    (own_library / 'fill.cpp').write_text(SOURCE.replace('value;', '-value;'))
    library._load.cache_clear()
    library.call('fill', x, 5, 1.0)
    assert x.tolist() == [-1] * 5
    assert len(compiled(tmp_path)) == 2


def test_source_that_does_not_compile_is_told(own_library, tmp_path):
    (own_library / 'fill.cpp').write_text('no C++')
    reason = refuse_cpp(torch.zeros(1))
    assert reason.startswith('no kernels were built: ')
    assert 'fill.cpp' in reason
    assert compiled(tmp_path) == []


def test_a_file_that_is_cut_short_is_made_anew(own_library):
    file = library._built()
    file.write_bytes(b'cut')
    assert refuse_cpp(torch.zeros(1)) is None
    assert file.stat().st_size > 1000


def test_libraries_that_nobody_loads_are_removed(own_library, tmp_path):
    x = torch.zeros(1)
    used = library._built()
    unused, fresh, other = (
        used.with_name(name)
        for name in ('kernels-old.so', 'kernels-new.so', 'mine.so')
    )
    for file in (unused, fresh, other):
        file.write_bytes(b'')
    long_ago = time.time() - 31 * 24 * 3600
    for file in (used, unused, other):
        os.utime(file, (long_ago, long_ago))
    library.call('fill', x, 1, 2.5)  # loads, builds nothing
    assert used.stat().st_mtime > long_ago + 1 and unused.exists()
    (own_library / 'fill.cpp').write_text(SOURCE.replace('value;', '-value;'))
    library._load.cache_clear()
    library.call('fill', x, 1, 2.5)
    assert x.item() == -2.5
    assert not unused.exists()
    assert {used, fresh, other} < set(compiled(tmp_path))


def test_a_library_removed_before_it_is_loaded_is_made_anew(
    own_library, monkeypatch
):
    built = library._built
    times = []

    def build():
        file = built()
        if not times:  # by another process, in between
            file.unlink()
        times.append(file)
        return file

    monkeypatch.setattr(library, '_built', build)
    assert refuse_cpp(torch.zeros(1)) is None
    assert len(times) == 2


def test_without_a_home_the_next_row_runs(monkeypatch):
    def homeless():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(library.Path, 'home', homeless)
    library._load.cache_clear()
    try:
        assert 'home directory' in refuse_cpp(torch.zeros(1))
        window_attention(torch.zeros(1, 2, 2, 6), 1, 2)
    finally:
        library._load.cache_clear()


def test_without_a_compiler_the_next_row_runs(monkeypatch):
    qkv = torch.randn(1, 4, 4, 12)
    want = window_attention(qkv, 2, 2, impl='sdpa')
    monkeypatch.setattr(library, '_MISSING', 'there is no C++ compiler')
    torch.testing.assert_close(window_attention(qkv, 2, 2), want)
    with pytest.raises(RuntimeError, match="impl 'cpp': there is no C.. comp"):
        window_attention(qkv, 2, 2, impl='cpp')


@pytest.mark.parametrize(
    'name, value, reason',
    [
        (
            'MMATTN_CPU_KERNELS',
            '0',
            'MMATTN_CPU_KERNELS=0 switches kernels off',
        ),
        ('CXX', 'no-g++ -v', "there is no C++ compiler 'no-g++ -v'"),
        ('CXX', "'", 'there is no C++ compiler "\'"'),
        ('CXX', ' ', 'None'),
    ],
)
def test_environment(monkeypatch, name, value, reason):
    monkeypatch.setenv(name, value)
    code = (
        'from mmattn.ops.cpu_kernels import why_no_compiler\n'
        'print(why_no_compiler())'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.stdout.startswith(reason), done.stderr


@pytest.mark.parametrize(
    'tensors, reason',
    [
        ([torch.zeros(1).half()], 'takes float32 or float64 alike, got torch'),
        ([torch.zeros(1), torch.zeros(1).double()], 'alike, got torch.float6'),
        ([torch.zeros(1, device='meta')], 'it runs on a CPU, got meta'),
        ([torch.zeros(1), None], None),
    ],
)
def test_refuses(tensors, reason):
    got = refuse_cpp(*tensors)
    assert got is None if reason is None else reason in got


def test_refuses_what_looks_at_operations():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        assert 'a dispatch mode' in refuse_cpp(torch.zeros(1))
