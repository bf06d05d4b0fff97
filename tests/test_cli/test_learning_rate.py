"""The learning rate is scaled on demand, and always reported."""

import pytest
from mmengine.config import Config

from mmattn.cli.learning_rate import describe_batch, enable_lr_scaling
from mmattn.errors import UsageError


def test_scaling_is_enabled():
    cfg = Config(dict(auto_scale_lr=dict(enable=False, base_batch_size=16)))
    enable_lr_scaling(cfg)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)


@pytest.mark.parametrize('content', [{}, dict(auto_scale_lr=dict())])
def test_scaling_needs_a_base(content):
    with pytest.raises(
        UsageError, match=r'expects auto_scale_lr\.base_batch_size'
    ):
        enable_lr_scaling(Config(content))


def test_batch_that_fits():
    line = describe_batch(8, 2, dict(enable=True, base_batch_size=16))
    assert line == 'Batch: 8 x 2 = 16 images.'


def test_batch_that_was_scaled_for():
    line = describe_batch(2, 4, dict(enable=True, base_batch_size=16))
    assert line.endswith('is for 16 and was multiplied by 0.5.')


def test_batch_that_does_not_fit():
    line = describe_batch(2, 4, dict(enable=False, base_batch_size=16))
    assert line.startswith('Batch: 2 x 4 = 8 images.')
    assert 'not scaled' in line and '--auto-scale-lr' in line


def test_batch_without_a_base():
    assert describe_batch(1, 4, None) == 'Batch: 1 x 4 = 4 images.'
