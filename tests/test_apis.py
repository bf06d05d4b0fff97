"""Inferencers of the three codebases, by config path and by model name."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmattn import apis
from mmattn.zoo import find_model

CLASSIFIER = 'boat-swin-nano_1xb32-25e_digits'
DETECTOR = 'mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits'
SEGMENTOR = 'upernet_boat-swin-nano_1xb8-8e_digits'
META = dict(
    classes=tuple('abcdefghij'), palette=[(i, 0, 9) for i in range(10)]
)


@pytest.fixture(autouse=True)
def default_scope():
    """A new process has none, but the inferencers leave theirs set."""
    before = dict(DefaultScope._instance_dict)
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (72, 104, 3), dtype=np.uint8)


@pytest.fixture
def checkpoint(tmp_path):
    """Save random weights of a model and return the path."""

    def save(name):
        cfg = Config.fromfile(find_model(name).config)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            state = MODELS.build(cfg.model).state_dict()
        path = tmp_path / f'{name}.pth'
        torch.save(dict(state_dict=state, meta=dict(dataset_meta=META)), path)
        return str(path)

    return save


def test_mmpretrain_classifies_and_extracts_by_name(image, checkpoint):
    from mmpretrain import FeatureExtractor, ImageClassificationInferencer

    weights = checkpoint(CLASSIFIER)
    classify = ImageClassificationInferencer(CLASSIFIER, weights, device='cpu')
    (result,) = classify(image)
    assert result['pred_class'] in META['classes']
    extract = FeatureExtractor(
        CLASSIFIER, weights, device='cpu', backbone=dict(out_indices=(0, 1, 3))
    )
    (maps,) = extract(image, stage='backbone')
    assert [m.shape for m in maps] == [(24, 18, 26), (48, 9, 13), (192, 3, 4)]


def test_mmdet_detects_by_path_and_by_name(image, checkpoint):
    from mmdet.apis import DetInferencer

    weights = checkpoint(DETECTOR)
    by_name = apis.det_inferencer(DETECTOR, weights, device='cpu')
    assert isinstance(by_name, DetInferencer)
    assert by_name.model.dataset_meta['classes'] == META['classes']
    path = str(find_model(DETECTOR).config)
    by_path = DetInferencer(path, weights, device='cpu')
    first, second = (
        inferencer(image)['predictions'][0]
        for inferencer in (by_name, by_path)
    )
    assert len(first['bboxes']) > 0
    assert first['bboxes'] == second['bboxes']
    fast = apis.det_inferencer(DETECTOR, weights, optimize=True, device='cpu')
    assert hasattr(fast.model, 'optimized')
    assert len(fast(image)['predictions'][0]['bboxes']) > 0


def test_mmseg_segments_by_path_and_by_name(image, checkpoint):
    from mmseg.apis import MMSegInferencer

    weights = checkpoint(SEGMENTOR)
    by_name = apis.seg_inferencer(SEGMENTOR, weights, device='cpu')
    assert isinstance(by_name, MMSegInferencer)
    assert by_name.visualizer.dataset_meta['classes'] == META['classes']
    path = str(find_model(SEGMENTOR).config)
    by_path = MMSegInferencer(path, weights, device='cpu')
    first, second = (
        inferencer(image, return_datasamples=False)['predictions']
        for inferencer in (by_name, by_path)
    )
    assert first.shape == (72, 104)
    assert (first == second).all()
    fast = apis.seg_inferencer(SEGMENTOR, weights, optimize=True, device='cpu')
    assert hasattr(fast.model, 'optimized')
    assert fast(image, return_datasamples=False)['predictions'].size


def test_a_model_without_weights():
    with pytest.raises(ValueError, match='no published weights'):
        apis.det_inferencer(DETECTOR)


@pytest.mark.parametrize('make', [apis.det_inferencer, apis.seg_inferencer])
def test_a_model_of_another_task(make):
    with pytest.raises(ValueError, match='Image Classification'):
        make(CLASSIFIER)
