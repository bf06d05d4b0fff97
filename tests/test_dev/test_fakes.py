"""Fakes of what a check cannot download or run on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from fakes import _lapjv, fake_dependencies

mmcv_ops = pytest.importorskip('mmcv.ops')


def test_masked_convolution_keeps_the_masked_places():
    layer = mmcv_ops.MaskedConv2d(2, 3, 3, padding=1).double()
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    mask = torch.rand(1, 4, 5) > 0.5
    with fake_dependencies({}, 'mmdet'):
        out = layer(x, mask)
    whole = F.conv2d(x, layer.weight, layer.bias, padding=1)
    assert torch.equal(out[:, :, mask[0]], whole[:, :, mask[0]])
    assert not out[:, :, ~mask[0]].any()


def test_carafe_is_a_weighted_sum_of_neighbours():
    torch.manual_seed(0)
    x = torch.rand(2, 4, 3, 5, dtype=torch.float64)
    masks = torch.rand(2, 2 * 9, 6, 10, dtype=torch.float64)
    with fake_dependencies({}, 'mmdet'):
        out = mmcv_ops.CARAFE(3, 2, 2)(x, masks)
    assert out.shape == (2, 4, 6, 10)
    # By hand: channel 3, of the second group, at row 5, column 2.
    padded = F.pad(x, (1, 1, 1, 1))
    near = padded[1, 3, 2:5, 1:4].flatten()  # around row 2, column 1
    expected = (near * masks[1, 9:, 5, 2]).sum()
    torch.testing.assert_close(out[1, 3, 5, 2], expected)


def test_pooling_reaches_its_offsets():
    layer = mmcv_ops.DeformRoIPoolPack((2, 2), 3, spatial_scale=0.5)
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    rois = torch.tensor([[0.0, 0.0, 0.0, 12.0, 12.0]])
    with fake_dependencies({}, 'mmdet'):
        out = layer(x, rois)
    assert out.shape == (1, 3, 2, 2)
    out.sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in layer.parameters())


def test_solver_leaves_expensive_pairs_unmatched():
    cost = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.9, 0.9]]).numpy()
    total, columns, rows = _lapjv(cost, extend_cost=True, cost_limit=0.6)
    assert columns.tolist() == [2, 0]
    assert rows.tolist() == [1, -1, 0]
    assert total == pytest.approx(0.7)
