import torch
from torch import nn

from mmattn.layers import MLP, AttentionBlock, PatchEmbed, PatchMerging


def test_block_adds_both_branches():
    block = AttentionBlock(nn.Linear(8, 8), 8, mlp_ratio=2.0)
    x = torch.randn(2, 3, 5, 8)
    y = x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))
    assert block.mlp.fc1.out_features == 16


def test_drop_path_leaves_out_a_branch_of_an_image():
    block = AttentionBlock(nn.Identity(), 8, drop_path_rate=0.5)
    nn.init.zeros_(block.mlp.fc2.weight)
    nn.init.zeros_(block.mlp.fc2.bias)
    x = torch.randn(64, 2, 2, 8)
    added = (block(x) - x).flatten(1)
    # A branch that is kept is scaled such that its mean stays.
    kept = added.abs().amax(1) > 1e-6
    assert 10 < kept.sum() < 54
    torch.testing.assert_close(
        added[kept], 2 * block.norm1(x).flatten(1)[kept], atol=1e-5, rtol=1e-5
    )


def test_mlp_is_two_layers_with_exact_gelu():
    mlp = MLP(4, 6).double()
    x = torch.randn(5, 4).double()
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    torch.testing.assert_close(
        mlp(x), hidden @ mlp.fc2.weight.T + mlp.fc2.bias
    )


def test_patch_embed_pads_at_bottom_and_right():
    stem = PatchEmbed(3, 8)
    x = torch.randn(2, 3, 13, 18)
    padded = torch.zeros(2, 3, 16, 20)
    padded[:, :, :13, :18] = x
    assert stem(x).shape == (2, 4, 5, 8)
    torch.testing.assert_close(stem(x), stem(padded))


def test_patch_merging_keeps_the_order_of_the_published_weights():
    merging = PatchMerging(2, 8).double()
    merging.norm = nn.Identity()
    merging.reduction = nn.Identity()
    x = torch.arange(3 * 4 * 2.0).reshape(1, 3, 4, 2)
    out = merging(x)
    assert out.shape == (1, 2, 2, 8)
    first = [x[0, 0, 0], x[0, 1, 0], x[0, 0, 1], x[0, 1, 1]]
    assert torch.equal(out[0, 0, 0], torch.cat(first))
    nothing = torch.zeros(2)
    last = [x[0, 2, 2], nothing, x[0, 2, 3], nothing]
    assert torch.equal(out[0, 1, 1], torch.cat(last))
