import numpy as np
import pytest

from mmattn.datasets import DigitSceneSpec
from mmattn.datasets.digit_glyphs import load_digit_pools
from mmattn.datasets.digit_scenes import compose_crop, compose_scene

SPEC = DigitSceneSpec(seed=1, num_train=4, num_val=2, size=128)


@pytest.fixture(scope='module')
def pools():
    return load_digit_pools(SPEC.seed)


def test_scenes_contain_separate_digits_of_the_pool(pools):
    for index in range(20):
        scene = compose_scene(SPEC, pools[1], 1, index)
        assert scene.image.shape == (128, 128, 3)
        assert scene.image.dtype == np.uint8
        assert 1 <= len(scene.digits) <= 8
        for digit in scene.digits:
            place = np.flatnonzero(pools[1].indices == digit.digit_index)
            assert pools[1].labels[place] == [digit.label]
        assert sum(digit.mask.astype(int) for digit in scene.digits).max() == 1


def test_masks_lie_on_the_ink(pools):
    scene = compose_scene(SPEC, pools[0], 0, 2)
    inside, outside = [], []
    for digit in scene.digits:
        rows, columns = np.nonzero(digit.mask)
        window = np.s_[
            rows.min() : rows.max() + 1, columns.min() : columns.max() + 1
        ]
        pixels = scene.image[window].astype(float)
        mask = digit.mask[window]
        ink = np.median(pixels[mask], axis=0)
        distance = np.abs(pixels - ink).sum(axis=2)
        inside.append(distance[mask].mean())
        outside.append(distance[~mask].mean())
    assert np.mean(outside) > 3 * np.mean(inside)


def test_splits_get_other_draws(pools):
    one = compose_scene(SPEC, pools[0], 0, 0)
    other = compose_scene(SPEC, pools[0], 1, 0)
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize('size', [64, 128, 256])
def test_crops_have_three_eighths_of_the_size(pools, size):
    spec = DigitSceneSpec(size=size)
    for index in range(40):
        image = pools[0].images[index]
        crop = compose_crop(spec, image, 0, index)
        assert crop.shape == (size * 3 // 8, size * 3 // 8, 3)
        assert crop.dtype == np.uint8


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(seed=-1), 'seed'),
        (dict(num_train=0), 'num_train=0'),
        (dict(num_val=0), 'num_val=0'),
        (dict(size=32), '64 and 1024'),
        (dict(size=100), 'multiple of 8'),
    ],
)
def test_wrong_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        DigitSceneSpec(**wrong)
