import numpy as np
import pytest
from PIL import Image

from mmattn.visualization import (
    Detection,
    Instances,
    plot_classifications,
    plot_detections,
    plot_segmentations,
)

CLASSES = tuple('0123456789')


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)


def instances(scores=None) -> Instances:
    mask = np.zeros((1, 40, 60), dtype=bool)
    mask[0, 5:20, 10:30] = True
    return Instances(
        np.array([[10, 5, 30, 20]]),
        np.array([7]),
        mask,
        None if scores is None else np.array(scores),
    )


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == 'PNG'
        return np.asarray(picture.convert('RGB')).astype(int)


def test_detections_below_the_threshold_are_left_out(image, tmp_path):
    pictures = []
    for score in (0.9, 0.4):
        sample = Detection(image, instances(), instances([score]))
        out = tmp_path / f'{score}.png'
        plot_detections([sample], CLASSES, out, score_thr=0.5, columns=1)
        pictures.append(pixels(out))
    changed = np.abs(pictures[0] - pictures[1]).sum(axis=(1, 2)) > 0
    half = len(changed) // 2
    # The ground truth above stays, the prediction below disappears.
    assert not changed[:half].any()
    assert changed[half:].any()


def test_an_image_without_objects_is_drawn(image, tmp_path):
    none = Instances(
        np.zeros((0, 4)),
        np.zeros(0, int),
        np.zeros((0, 40, 60), bool),
        np.zeros(0),
    )
    out = tmp_path / 'none.png'
    plot_detections([Detection(image, none, none)], CLASSES, out)
    assert pixels(out).shape == (400, 800, 3)


def test_segmentation_shows_truth_and_prediction(image, tmp_path):
    truth = np.zeros((40, 60), dtype=int)
    wrong = truth.copy()
    wrong[10:30, 10:50] = 4
    pictures = []
    for prediction in (truth, wrong):
        out = tmp_path / 'seg.png'
        plot_segmentations(
            [(image, truth, prediction)], ('background', *CLASSES), out, 1
        )
        pictures.append(pixels(out))
    blue = np.array([67, 99, 216])  # of the digit 3, class 4
    near = [(np.abs(p - blue).sum(axis=2) < 130).sum() for p in pictures]
    assert near[1] > near[0] + 500


def test_classification_marks_mistakes(image, tmp_path):
    red = []
    for prediction in (3, 5):
        out = tmp_path / 'cls.png'
        plot_classifications([(image, 3, prediction, 0.8)], CLASSES, out, 1)
        picture = pixels(out)
        red.append((picture[:30] == [207, 34, 46]).all(axis=2).sum())
    assert red[0] == 0 and red[1] > 0


@pytest.mark.parametrize(
    'plot', [plot_detections, plot_segmentations, plot_classifications]
)
def test_no_samples(plot, tmp_path):
    with pytest.raises(ValueError, match='no samples'):
        plot([], CLASSES, tmp_path / 'x.png')


def test_the_highest_score_is_drawn_on_top(image, tmp_path):
    high, low = instances([0.9]), instances([0.6])
    low = low._replace(labels=np.array([2]))
    pictures = []
    for pair in ((high, low), (low, high)):
        both = Instances(*(np.concatenate(fields) for fields in zip(*pair)))
        out = tmp_path / 'both.png'
        plot_detections([Detection(image, instances(), both)], CLASSES, out)
        pictures.append(pixels(out))
    np.testing.assert_array_equal(*pictures)
