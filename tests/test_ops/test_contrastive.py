import pytest
import torch

from mmattn.ops import contrastive, contrastive_loss


def by_sorting(q, k, ranks, first, margin):
    """The published way: sort the whole N x N matrix."""
    weights = (q @ k.mT).exp().sort(dim=-1, descending=True).values
    p = weights[..., :ranks].mean(-1)
    n = weights[..., first : first + ranks].mean(-1)
    return (margin - (p / (n + 1e-6)).log()).clamp(min=0).mean()


@pytest.mark.parametrize('ranks, first, N', [(15, 50, 65), (3, 7, 40)])
@pytest.mark.parametrize('at_once', [1, 1 << 22])
def test_equals_sorting_the_whole_matrix(
    ranks, first, N, at_once, monkeypatch
):
    monkeypatch.setattr(contrastive, '_PRODUCTS_AT_ONCE', at_once)
    q, k = 0.3 * torch.randn(2, 2, N, 6).double()
    q.requires_grad_()
    k.requires_grad_()
    got = contrastive_loss(q, k, ranks, first, 2.0)
    want = by_sorting(q, k, ranks, first, 2.0)
    assert 0.5 < want < 2
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    for a, b in zip(
        torch.autograd.grad(got, (q, k)), torch.autograd.grad(want, (q, k))
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_memory_grows_linearly(kept_bytes):
    def loss(N):
        q = torch.randn(1, N, 4, requires_grad=True)
        return kept_bytes(lambda: contrastive_loss(q, q))

    once, twice, four_times = loss(200), loss(400), loss(800)
    assert four_times - twice < 2.1 * (twice - once)


def test_too_few_tokens():
    with pytest.raises(ValueError, match='expects at least 65 tokens, got 64'):
        contrastive_loss(torch.randn(1, 64, 4), torch.randn(1, 64, 4))


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r'expects q and k \(B, N, d\), got'):
        contrastive_loss(torch.randn(1, 80, 4), torch.randn(1, 70, 4))
