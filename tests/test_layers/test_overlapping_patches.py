import pytest
import torch

from mmattn.layers import OverlappingPatchEmbed, OverlappingPatchMerging


@pytest.mark.parametrize(
    'side, tokens', [(4, 1), (6, 1), (7, 2), (32, 8), (34, 8), (35, 9)]
)
def test_tokens_of_a_side(side, tokens):
    out = OverlappingPatchEmbed(3, 8)(torch.randn(2, 3, 16, side))
    assert out.shape == (2, 4, tokens, 8)


def test_a_patch_overlaps_the_next():
    stem = OverlappingPatchEmbed(1, 8).double()
    x = torch.randn(1, 1, 16, 16).double()
    moved = x.clone()
    moved[0, 0, 8, 9] += 1
    changed = (stem(moved) - stem(x)).abs().amax(-1)[0] > 1e-9
    # Tokens i see the pixels from 4 i - 2 to 4 i + 4.
    want = torch.zeros(4, 4, dtype=torch.bool)
    want[1:3, 2] = True
    assert torch.equal(changed, want)


def test_too_small_an_image():
    with pytest.raises(
        ValueError,
        match=r'OverlappingPatchEmbed expects images \(B, 3, H, W\) of at '
        r'least 4 x 4 pixels, got \(1, 3, 3, 8\)',
    ):
        OverlappingPatchEmbed(3, 8)(torch.randn(1, 3, 3, 8))


@pytest.mark.parametrize('size, half', [((4, 6), (2, 3)), ((5, 1), (3, 1))])
def test_merging_halves_a_map_rounded_up(size, half):
    out = OverlappingPatchMerging(4, 8)(torch.randn(2, *size, 4))
    assert out.shape == (2, *half, 8)
    torch.testing.assert_close(
        out.mean(-1), torch.zeros(2, *half), atol=1e-5, rtol=0
    )
