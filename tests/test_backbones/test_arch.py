import pytest
import torch

from mmattn.backbones import BOATSwin
from mmattn.backbones.arch import drop_path_schedule


def test_rates_grow_linearly_over_all_blocks():
    rates = drop_path_schedule(0.3, (2, 1, 1))
    assert rates == [[0, pytest.approx(0.1)], [pytest.approx(0.2)], [0.3]]
    assert drop_path_schedule(0.3, (1,)) == [[0]]


def test_a_backbone_builds_without_memory():
    with torch.device('meta'):
        model = BOATSwin('tiny')
    assert next(model.parameters()).is_meta


@pytest.mark.parametrize('rate', [-0.1, 1, 1.5])
def test_a_rate_that_is_no_probability(rate):
    with pytest.raises(
        ValueError, match='drop_path_rate from 0 to below 1, got'
    ):
        BOATSwin('nano', drop_path_rate=rate)


def test_a_perceptron_without_channels():
    with pytest.raises(ValueError, match='hidden_dims >= 1, got 0; check mlp'):
        BOATSwin('nano', mlp_ratio=0)
