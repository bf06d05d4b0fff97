import torch
from torch import nn

from mmattn.layers import FeatureSpaceBlock


def test_block_adds_three_branches():
    block = FeatureSpaceBlock(nn.Linear(8, 8), nn.Linear(8, 8), 8)
    x = torch.randn(2, 3, 5, 8)
    y = x + block.attn(block.norm1(x))
    y = y + block.feature_attn(block.feature_norm(y))
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))


def changes_between_calls(**rates):
    """Whether two training calls of a block differ."""
    block = FeatureSpaceBlock(nn.Identity(), nn.Linear(8, 8), 8, **rates)
    x = torch.randn(64, 2, 2, 8)
    return not torch.equal(block(x), block(x))


def test_each_kind_of_branch_has_a_rate_of_its_own():
    assert not changes_between_calls()
    assert changes_between_calls(drop_path_rate=0.5)
    assert changes_between_calls(feature_drop_path_rate=0.5)


def test_drop_path_leaves_out_the_feature_space_of_an_image():
    block = FeatureSpaceBlock(
        nn.Identity(), nn.Linear(8, 8), 8, feature_drop_path_rate=0.5
    )
    for layer in (block.norm1, block.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(64, 2, 2, 8)
    added = (block(x) - x).flatten(1)
    # A branch that is kept is scaled such that its mean stays.
    kept = added.abs().amax(1) > 1e-6
    assert 10 < kept.sum() < 54
    branch = block.feature_attn(block.feature_norm(x)).flatten(1)
    torch.testing.assert_close(
        added[kept], 2 * branch[kept], atol=1e-5, rtol=1e-5
    )
