"""Kernels of a test's own."""

import pytest

from mmattn.ops.cpu_kernels import building, library

SOURCE = """#include "simd.h"

extern "C" MMATTN_EXPORT mmattn::Index mmattn_fill_f32(
    float* x, mmattn::Index n, double value) {
  for (mmattn::Index i = 0; i < n; ++i) x[i] = value;
  return 0;
}
"""


@pytest.fixture
def own_library(tmp_path, monkeypatch):
    """Kernels of a test's own in a cache of its own."""
    sources = tmp_path / 'sources'
    sources.mkdir()
    (sources / 'fill.cpp').write_text(SOURCE)
    (sources / 'simd.h').write_bytes(
        (building._SOURCES / 'simd.h').read_bytes()
    )
    monkeypatch.setattr(building, '_SOURCES', sources)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    library._load.cache_clear()
    library._warn_once.cache_clear()
    yield sources
    library._load.cache_clear()
    library._warn_once.cache_clear()
