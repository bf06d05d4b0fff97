import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmattn.cli.single_image import build_pipeline, run_features
from mmattn.config import build_model
from mmattn.errors import UsageError


def config(**fields):
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                backbone=dict(
                    type='mmattn.SMT', arch='nano', out_indices=(1,)
                ),
            ),
            data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6]),
            **fields,
        )
    )


def test_model():
    cfg = config()
    model = build_model(cfg)
    assert not model.training and 'data_preprocessor' not in cfg.model
    assert model.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]


def test_features_without_a_head_and_without_gradient():
    outs = []
    model = build_model(config())
    model.backbone.register_forward_hook(lambda *args: outs.append(args[-1]))
    run_features(model, torch.rand(1, 3, 32, 40))
    assert outs[0][0].shape == (1, 48, 4, 5) and not outs[0][0].requires_grad
    bare = nn.Identity()
    bare.register_forward_hook(lambda *args: outs.append(args[-1]))
    run_features(bare, torch.rand(1))
    assert len(outs) == 2


def test_a_pipeline_without_the_truth():
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='PackInputs'),
    ]
    loader = dict(dataset=dict(dataset=dict(pipeline=steps)))
    pipeline = build_pipeline(config(test_dataloader=loader))
    assert [type(step).__name__ for step in pipeline.transforms] == [
        'LoadImageFromFile',
        'PackInputs',
    ]
    with pytest.raises(UsageError, match='needs a pipeline'):
        build_pipeline(config(test_dataloader=dict(dataset=dict())))
