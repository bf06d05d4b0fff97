import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData
from pictures import (
    plot_classifications,
    plot_detections,
    plot_segmentations,
)
from PIL import Image

CLASSES = tuple('0123456789')


@pytest.fixture
def make_sample(tmp_path):
    path = tmp_path / 'image.png'
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(path)

    def make(**fields):
        sample = BaseDataElement(metainfo=dict(img_path=str(path)))
        sample.set_data(fields)
        return sample

    return make


def instances(labels, scores=None):
    masks = torch.zeros(len(labels), 40, 60, dtype=torch.bool)
    masks[:, 5:20, 10:30] = True
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 5, 30, 20]]).expand(len(labels), -1),
        labels=torch.tensor(labels, dtype=torch.long),
        masks=masks,
    )
    if scores is not None:
        found.scores = torch.tensor(scores)
    return found


def detection(make_sample, labels, scores):
    return make_sample(
        gt_instances=instances([7]), pred_instances=instances(labels, scores)
    )


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == 'PNG'
        return np.asarray(picture.convert('RGB')).astype(int)


def test_detections_below_the_threshold_are_left_out(make_sample, tmp_path):
    pictures = []
    for score in (0.9, 0.4):
        sample = detection(make_sample, [7], [score])
        out = tmp_path / f'{score}.png'
        plot_detections([sample], CLASSES, out, score_thr=0.5)
        pictures.append(pixels(out))
    changed = np.abs(pictures[0] - pictures[1]).sum(axis=(1, 2)) > 0
    half = len(changed) // 2
    # The ground truth above stays, the prediction below disappears.
    assert not changed[:half].any()
    assert changed[half:].any()


def test_an_image_without_objects_is_drawn(make_sample, tmp_path):
    out = tmp_path / 'none.png'
    sample = make_sample(
        gt_instances=instances([]), pred_instances=instances([], [])
    )
    plot_detections([sample], CLASSES, out)
    assert pixels(out).shape == (400, 800, 3)


def test_segmentation_shows_truth_and_prediction(make_sample, tmp_path):
    truth = torch.zeros(1, 40, 60, dtype=torch.long)
    wrong = truth.clone()
    wrong[0, 10:30, 10:50] = 4
    pictures = []
    for prediction in (truth, wrong):
        out = tmp_path / 'seg.png'
        sample = make_sample(
            gt_sem_seg=BaseDataElement(data=truth),
            pred_sem_seg=BaseDataElement(data=prediction),
        )
        plot_segmentations([sample], ('background', *CLASSES), out)
        pictures.append(pixels(out))
    blue = np.array([67, 99, 216])  # of the digit 3, class 4
    near = [(np.abs(p - blue).sum(axis=2) < 130).sum() for p in pictures]
    assert near[1] > near[0] + 500


def test_classification_marks_mistakes(make_sample, tmp_path):
    red = []
    for prediction in (3, 5):
        out = tmp_path / 'cls.png'
        sample = make_sample(
            gt_label=torch.tensor([3]),
            pred_label=torch.tensor([prediction]),
            pred_score=torch.full((10,), 0.8),
        )
        plot_classifications([sample], CLASSES, out)
        picture = pixels(out)
        red.append((picture[:30] == [207, 34, 46]).all(axis=2).sum())
    assert red[0] == 0 and red[1] > 0


def test_the_highest_score_is_drawn_on_top(make_sample, tmp_path):
    pictures = []
    for labels, scores in (([7, 2], [0.9, 0.6]), ([2, 7], [0.6, 0.9])):
        out = tmp_path / 'both.png'
        sample = detection(make_sample, labels, scores)
        plot_detections([sample], CLASSES, out)
        pictures.append(pixels(out))
    np.testing.assert_array_equal(*pictures)
