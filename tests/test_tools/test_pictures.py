import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from pictures import (
    GAP,
    HEADER,
    RIGHT,
    WRONG,
    add_header,
    draw_sample,
    enlarge,
)

CLASSES = tuple('0123456789')
PALETTE = [(25 * c, 250 - 25 * c, 100) for c in range(10)]
H, W = 40, 60
SCALE = 7  # of the picture


@pytest.fixture
def draw(tmp_path):
    """Draw a sample, ``(height, width, 3)`` in 0..255."""
    path = tmp_path / 'image.png'
    noise = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    mmcv.imwrite(noise, str(path))

    def draw(visualizer, sample):
        sample.set_metainfo(dict(img_path=str(path)))
        visualizer.dataset_meta = dict(classes=CLASSES, palette=PALETTE)
        picture = draw_sample(visualizer, sample)
        assert 0 <= picture.min() and picture.max() <= 1
        return 255 * picture.permute(1, 2, 0)

    return draw


def instances(labels, scores=None):
    masks = torch.zeros(len(labels), H, W, dtype=torch.bool)
    masks[:, 5:20, 10:30] = True
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 5, 30, 20]]).expand(len(labels), -1),
        labels=torch.tensor(labels, dtype=torch.long),
        masks=masks,
    )
    if scores is not None:
        found.scores = torch.tensor(scores)
    return found


def detection(labels, scores, truth=(7,)):
    return DetDataSample(
        gt_instances=instances(truth), pred_instances=instances(labels, scores)
    )


def changed(first, second):
    """The changed pixels of the left and the right half."""
    where = (first - second).abs().sum(dim=2) > 0
    return where.tensor_split(2, dim=1)


def test_detections_below_the_threshold_are_left_out(draw):
    pictures = [
        draw(DetLocalVisualizer(), detection([7], [score]))
        for score in (0.9, 0.4)
    ]
    assert pictures[0].shape == (SCALE * H, 2 * SCALE * W, 3)
    truth, prediction = changed(*pictures)
    assert not truth.any()
    box = slice(5 * SCALE, 20 * SCALE), slice(10 * SCALE, 30 * SCALE)
    assert prediction[box].float().mean() > 0.9
    prediction[box] = False
    assert prediction.float().mean() < 0.02  # the line of the box


def test_an_object_has_the_same_color_on_both_sides(draw):
    sample = detection([2, 7], [0.9, 0.8], truth=(7, 2))
    for instances, last in (
        (sample.gt_instances, 1),
        (sample.pred_instances, 0),
    ):
        instances.masks[last] = False
        instances.masks[last, 22:35, 40:55] = True
    picture = draw(DetLocalVisualizer(), sample)
    truth, prediction = picture.tensor_split(2, dim=1)
    for row, column in ((12, 20), (28, 47)):
        place = row * SCALE, column * SCALE
        assert torch.equal(truth[place], prediction[place])


def test_an_image_without_objects_is_drawn(draw):
    picture = draw(DetLocalVisualizer(), detection([], [], truth=()))
    truth, prediction = picture.tensor_split(2, dim=1)
    assert torch.equal(truth, prediction)


def test_segmentation_shows_truth_and_prediction(draw):
    pictures = []
    for label in (0, 4):
        labels = torch.zeros(1, H, W, dtype=torch.long)
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=labels.clone()),
        )
        labels[0, 10:30, 10:50] = label
        sample.pred_sem_seg = PixelData(data=labels)
        pictures.append(draw(SegLocalVisualizer(), sample))
    truth, prediction = changed(*pictures)
    assert not truth.any()
    box = slice(10 * SCALE, 30 * SCALE), slice(10 * SCALE, 50 * SCALE)
    assert prediction[box].float().mean() > 0.9


def test_classification_shows_truth_and_prediction_and_marks_mistakes(draw):
    pictures = []
    for truth, prediction in ((3, 3), (3, 5), (5, 3)):
        sample = DataSample().set_gt_label(truth).set_pred_label(prediction)
        sample.set_pred_score(torch.full((10,), 0.8))
        pictures.append(draw(UniversalVisualizer(), sample))
    assert pictures[0].shape == (SCALE * H, SCALE * W, 3)
    for picture, color in zip(pictures, (RIGHT, WRONG, WRONG)):
        for corner in (picture[-4:, :4], picture[:4, -4:]):
            assert (corner.round() == torch.tensor(color)).all()
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(pictures[first], pictures[second])


@pytest.mark.parametrize('columns', [1, 2])
def test_the_header_names_the_halves(columns):
    width = 240
    sheet = torch.zeros(3, 30, GAP + columns * (width + GAP))
    picture = add_header(sheet, width)
    assert torch.equal(picture[:, HEADER:], sheet)
    inked = (picture[:, :HEADER] < 0.5).any(dim=1)[0]
    for column in range(columns):
        left = GAP + column * (width + GAP)
        halves = inked[left : left + width].tensor_split(2)
        truth, prediction = (half.nonzero().max() for half in halves)
        assert 20 < truth < prediction < width / 2


def test_enlarge():
    assert enlarge(torch.tensor([[1, 2]]), 2).tolist() == [[1, 1, 2, 2]] * 2
