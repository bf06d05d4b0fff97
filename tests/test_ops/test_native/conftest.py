"""A library of a test's own."""

import os

import pytest

from mmattn.ops._native import Library, build, library

SOURCE = """#include "simd.h"

extern "C" MMATTN_EXPORT mmattn::Index mmattn_fill_f32(
    float* x, mmattn::Index n, double value) {
  for (mmattn::Index i = 0; i < n; ++i) x[i] = value;
  return 0;
}
"""
NATIVE = build.__file__.removesuffix('build.py')


@pytest.fixture(autouse=True)
def forget_warnings():
    """Let each test be the first to warn in its process."""
    library.warn_of_missing_kernels.cache_clear()
    yield
    library.warn_of_missing_kernels.cache_clear()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of libraries, for this test alone."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'mmattn' / 'kernels'


@pytest.fixture
def sources(tmp_path, cache):
    """A folder with one source, which includes a header of the operations."""
    folder = tmp_path / 'sources'
    folder.mkdir()
    (folder / 'fill.cpp').write_text(SOURCE)
    return folder


@pytest.fixture
def new_library(sources):
    """Make a library of the sources, as a new process would."""
    return lambda: Library('own', sources, [library.Path(NATIVE)])


@pytest.fixture
def compiler_script(tmp_path, monkeypatch):
    """Name a shell script as the compiler."""

    def name(code):
        script = tmp_path / 'compiler'
        script.write_text(f'#!/bin/sh\n{code}\n')
        os.chmod(script, 0o755)
        monkeypatch.setenv('CXX', str(script))

    return name
