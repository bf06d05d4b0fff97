import math

import pytest
import torch

from mmattn.ops import orthogonal_projection, random_feature_attention


def by_loops(q, k, v, projection):
    """The formula, one pair of tokens at a time, with an N x L matrix."""

    def phi(u):
        return torch.stack(
            [math.e ** (w @ u - u @ u / 2) + 1e-4 for w in projection]
        )

    out = []
    for query in q:
        weights = torch.stack([phi(query) @ phi(key) for key in k])
        out.append((weights / weights.sum()) @ v)
    return torch.stack(out)


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64)


def test_equals_the_formula():
    q, k, v = draw(2, 3, 5, 4), draw(2, 3, 7, 4), draw(2, 3, 7, 6)
    projection = draw(9, 4)
    out = random_feature_attention(q, k, v, projection)
    assert out.shape == (2, 3, 5, 6)
    for i in range(2):
        for j in range(3):
            want = by_loops(q[i, j], k[i, j], v[i, j], projection)
            torch.testing.assert_close(out[i, j], want, rtol=1e-12, atol=1e-12)


def test_gradient():
    q, k, v = draw(1, 3, 4), draw(1, 5, 4), draw(1, 5, 2)
    projection = draw(6, 4)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda *qkv: random_feature_attention(*qkv, projection), inputs
    )


def test_many_features_come_near_the_softmax():
    q, k, v = (
        torch.nn.functional.normalize(draw(1, 20, 8), dim=-1) for _ in range(3)
    )
    want = (q @ k.mT).softmax(-1) @ v

    def error(num_features):
        """Relative; the mean over ten draws of the features."""
        draws = (orthogonal_projection(num_features, 8, s) for s in range(10))
        outs = [
            random_feature_attention(q, k, v, rows.double()) for rows in draws
        ]
        return sum((out - want).norm() / want.norm() for out in outs) / 10

    few, many = error(128), error(2048)
    # The error of a mean of m draws falls with the root of m, by 4 here.
    assert many < few / 2.5
    assert many < 0.1


@pytest.mark.parametrize('size', [1e-3, 10.0, 300.0])
def test_no_exponential_overflows(size):
    q, k, v = torch.randn(3, 2, 30, 8)
    projection = orthogonal_projection(16, 8, 0)
    out = random_feature_attention(size * q, size * k, v, projection)
    assert out.isfinite().all()
    # A mean of the values, whatever the weights.
    assert (out <= v.amax(1, keepdim=True) + 1e-4).all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_result_only(dtype):
    q, k = torch.nn.functional.normalize(torch.randn(2, 1, 500, 8), dim=-1)
    v = torch.randn(1, 500, 8)
    projection = orthogonal_projection(16, 8, 0)
    half = [x.to(dtype) for x in (q, k, v)]
    out = random_feature_attention(*half, projection)
    assert out.dtype == dtype
    want = random_feature_attention(*(x.double() for x in half), projection)
    error = (out.double() - want).abs().max()
    assert error <= torch.finfo(dtype).eps * want.abs().max()


@pytest.mark.parametrize(
    'shapes',
    [
        ((1, 5, 4), (1, 7, 3), (1, 7, 4)),
        ((1, 5, 4), (1, 7, 4), (1, 6, 4)),
        ((1, 5, 6), (1, 7, 6), (1, 7, 6)),
    ],
)
def test_wrong_shapes(shapes):
    with pytest.raises(ValueError, match='projection'):
        random_feature_attention(*map(torch.randn, shapes), torch.randn(8, 4))


def test_the_only_implementation_is_the_reference():
    q, k, v = draw(3, 1, 5, 4)
    projection = draw(6, 4)
    out = random_feature_attention(q, k, v, projection, 'reference')
    assert torch.equal(out, random_feature_attention(q, k, v, projection))
    with pytest.raises(ValueError, match='sdpa'):
        random_feature_attention(q, k, v, projection, 'sdpa')


def test_rows_are_orthogonal_in_runs():
    rows = orthogonal_projection(10, 4, seed=3).double()
    assert rows.shape == (10, 4)
    for run in rows.split(4):
        unit = run / run.norm(dim=1, keepdim=True)
        torch.testing.assert_close(
            unit @ unit.T, torch.eye(len(run)).double(), atol=1e-6, rtol=0
        )


def test_rows_are_gaussian_one_by_one():
    rows = orthogonal_projection(20000, 5, seed=0)
    # Standard errors of mean and variance: 0.007 and 0.01.
    assert rows.mean(0).abs().max() < 0.03
    torch.testing.assert_close(
        rows.T @ rows / 20000, torch.eye(5), atol=0.05, rtol=0
    )
    torch.testing.assert_close(
        rows.square().sum(1).var(), torch.tensor(10.0), atol=1.0, rtol=0
    )


def test_rows_follow_from_the_seed():
    first = orthogonal_projection(6, 4, seed=1)
    torch.randn(3)  # the global generator plays no part
    assert torch.equal(first, orthogonal_projection(6, 4, seed=1))
    assert not torch.equal(first, orthogonal_projection(6, 4, seed=2))


def test_no_features():
    with pytest.raises(ValueError, match='num_features and dims >= 1, got'):
        orthogonal_projection(0, 4, seed=0)
