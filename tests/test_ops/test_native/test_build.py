import os
import time

import pytest
import torch

from mmattn.ops.cpu_kernels import building, library, refuse_cpp


def change(sources):
    file = sources / 'fill.cpp'
    file.write_text(file.read_text().replace('value;', '-value;'))


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
    change(own_library)
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
    file = building.build()
    file.write_bytes(b'cut')
    assert refuse_cpp(torch.zeros(1)) is None
    assert file.stat().st_size > 1000


def test_libraries_that_nobody_loads_are_removed(own_library, tmp_path):
    x = torch.zeros(1)
    used = building.build()
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
    change(own_library)
    library._load.cache_clear()
    library.call('fill', x, 1, 2.5)
    assert x.item() == -2.5
    assert not unused.exists()
    assert {used, fresh, other} < set(compiled(tmp_path))


def test_a_library_removed_before_it_is_loaded_is_made_anew(
    own_library, monkeypatch
):
    built = building.build
    times = []

    def build():
        file = built()
        if not times:  # by another process, in between
            file.unlink()
        times.append(file)
        return file

    monkeypatch.setattr(building, 'build', build)
    assert refuse_cpp(torch.zeros(1)) is None
    assert len(times) == 2


@pytest.mark.parametrize(
    'name, value, reason',
    [
        ('MMATTN_CPU_KERNELS', '0', 'MMATTN_CPU_KERNELS=0 switches kernels'),
        ('MMATTN_CPU_KERNELS', 'No', 'MMATTN_CPU_KERNELS=No switches kernels'),
        ('MMATTN_CPU_KERNELS', ' OFF ', 'MMATTN_CPU_KERNELS= OFF  switches'),
        ('MMATTN_CPU_KERNELS', 'false', 'MMATTN_CPU_KERNELS=false switches'),
        ('MMATTN_CPU_KERNELS', '1', None),
        ('MMATTN_CPU_KERNELS', 'YES', None),
        ('MMATTN_CPU_KERNELS', 'on', None),
        ('MMATTN_CPU_KERNELS', 'True', None),
        ('MMATTN_CPU_KERNELS', '', None),
        ('CXX', 'no-g++ -v', "there is no C++ compiler 'no-g++ -v'"),
        ('CXX', "'", 'there is no C++ compiler "\'"'),
        ('CXX', ' ', None),
    ],
)
def test_environment(monkeypatch, name, value, reason):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        building, 'IS_SWITCHED_OFF', building._is_switched_off()
    )
    got = building._find_compiler()[1]
    assert got is None if reason is None else got.startswith(reason)


def test_a_word_that_is_neither_yes_nor_no(monkeypatch):
    monkeypatch.setenv('MMATTN_CPU_KERNELS', 'maybe')
    with pytest.raises(ValueError) as error:
        building._is_switched_off()
    assert str(error.value) == (
        'MMATTN_CPU_KERNELS expects 1, yes, on or true for kernels in C++, or '
        "0, no, off or false for none, got 'maybe'"
    )
