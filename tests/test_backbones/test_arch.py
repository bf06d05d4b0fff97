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
