import json

import pytest
from PIL import Image

from mmattn.visualization import plot_curves
from mmattn.visualization.curves import extract_curve

# What mmengine's LocalVisBackend writes in two epochs of four iterations.
RECORDS = [
    {'lr': 1e-3, 'loss': 3.0, 'loss_cls': 1.0, 'epoch': 1, 'step': 2},
    {'lr': 1e-3, 'loss': 2.0, 'loss_cls': 0.5, 'epoch': 1, 'step': 4},
    {'coco/bbox_mAP': 0.25, 'step': 1},
    {'lr': 1e-3, 'loss': 1.0, 'loss_cls': 0.2, 'epoch': 2, 'step': 8},
    {'coco/bbox_mAP': 0.5, 'step': 2},
]


@pytest.fixture
def scalars(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('\n'.join(map(json.dumps, RECORDS)) + '\n')
    return path


def test_training_and_validation_share_the_epoch_axis():
    assert extract_curve(RECORDS, 'loss', 4) == ([0.5, 1, 2], [3, 2, 1])
    assert extract_curve(RECORDS, 'coco/bbox_mAP', 4) == ([1, 2], [0.25, 0.5])
    assert extract_curve(RECORDS, 'mIoU', 4) == ([], [])


def test_plot_writes_a_png(scalars, tmp_path):
    out = tmp_path / 'curves.png'
    plot_curves(scalars, {'coco/bbox_mAP': 'box mAP'}, 4, out, title='a run')
    with Image.open(out) as image:
        assert image.format == 'PNG'
        assert image.size == (1100, 440)
