import pytest
import torch
from mmcv.cnn.bricks import DropPath as MmcvDropPath

from mmattn.layers import DropPath


def test_decides_as_mmcv_does():
    x = torch.randn(32, 3, 2, 5)
    torch.manual_seed(1)
    want = MmcvDropPath(0.3)(x)
    torch.manual_seed(1)
    got = DropPath(0.3)(x)
    torch.testing.assert_close(got, want)
    dropped = got.flatten(1).eq(0).all(dim=1)
    assert 0 < dropped.sum() < 32


def test_leaves_everything_in_evaluation_and_at_rate_zero():
    x = torch.randn(4, 3)
    assert DropPath(0.3).eval()(x) is x
    assert DropPath()(x) is x


@pytest.mark.parametrize('drop_prob', [-0.1, 1.0])
def test_rates_that_make_no_sense(drop_prob):
    with pytest.raises(ValueError, match=f'below 1, got {drop_prob}'):
        DropPath(drop_prob)
