import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmattn.datasets.digit_glyphs import load_digit_pools, upscale_digit


def test_pools_split_every_class():
    train, val = load_digit_pools(0)
    assert len(train.indices) + len(val.indices) == 1797
    assert set(train.indices).isdisjoint(val.indices)
    digits = load_digits()
    for pool in (train, val):
        np.testing.assert_array_equal(pool.labels, digits.target[pool.indices])
        np.testing.assert_array_equal(
            pool.images * 16, digits.images[pool.indices]
        )
    counts = np.bincount(val.labels) / np.bincount(digits.target)
    np.testing.assert_allclose(counts, 0.2, atol=0.01)


def test_pools_depend_on_the_seed():
    one, _ = load_digit_pools(0)
    other, _ = load_digit_pools(1)
    assert not np.array_equal(one.indices, other.indices)


def test_upscaled_ring_keeps_its_hole_and_size():
    ring = np.zeros((8, 8))
    ring[1:7, 2:6] = 1
    ring[3:5, 3:5] = 0
    alpha = upscale_digit(ring, height=80, aspect=0.5)
    # 6 of 8 rows, 4 of 8 columns, and a rim.
    assert alpha.shape == pytest.approx((62, 22), abs=3)
    height, width = alpha.shape
    assert alpha[height // 2, width // 2] == 0
    assert alpha[height // 8, width // 2] == 1
    assert alpha.min() == 0 and alpha.max() == 1
    # The foreground, and at most one pixel around it.
    assert (alpha[1:-1].max(1) >= 0.5).all()
    assert (alpha[:, 1:-1].max(0) >= 0.5).all()


def test_every_digit_has_a_foreground_at_the_smallest_size():
    for pool in load_digit_pools(0):
        for image in pool.images:
            assert (upscale_digit(image, 12, 0.8) >= 0.5).sum() >= 10


def test_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn', None)
    with pytest.raises(ImportError, match='pip install scikit-learn'):
        load_digit_pools(0)
