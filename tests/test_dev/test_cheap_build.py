"""Models with shared weights."""

import torch
import torch.nn as nn
from cheap_build import shared_numbers, shared_weights


def test_large_weights_share_memory():
    with shared_weights():
        large, small = nn.Linear(256, 256), nn.Linear(3, 3)
    storage = shared_numbers().untyped_storage().data_ptr()
    assert large.weight.untyped_storage().data_ptr() == storage
    assert small.weight.untyped_storage().data_ptr() != storage
    own = nn.Linear(256, 256).weight
    assert own.untyped_storage().data_ptr() != storage
    assert 0.01 < large.weight.std() < 0.03
    assert torch.equal(shared_numbers()[:256], large.weight.flatten()[:256])
