import math

import pytest
import torch

from mmattn.ops import attention

IMPLS = ('reference', 'sdpa')
# Leading axes, queries, keys, channels of a key and of a value, bias shape.
CASES = {
    'one token': ((), 1, 1, 1, 1, None),
    'no leading axis': ((), 3, 5, 2, 4, (3, 5)),
    'one leading axis': ((2,), 3, 5, 2, 4, (2, 1, 5)),
    'heads': ((2, 3), 4, 2, 5, 5, (3, 4, 2)),
    'images': ((2, 3), 4, 2, 5, 5, (2, 1, 4, 2)),
    'bias of all windows': ((2, 3, 2), 4, 4, 3, 3, (2, 4, 4)),
    'bias per window': ((2, 3, 2), 4, 4, 3, 3, (3, 1, 4, 4)),
    'bias of one window': ((2, 3, 2), 4, 4, 3, 3, (1, 2, 4, 4)),
    'bias per image': ((2, 3, 2), 2, 4, 3, 3, (2, 1, 1, 2, 4)),
    'windows without bias': ((2, 3, 2), 4, 4, 3, 3, None),
}


def inputs(lead, N, L, d, e, bias, dtype=torch.float64):
    q = torch.randn(*lead, N, d, dtype=dtype, requires_grad=True)
    k = torch.randn(*lead, L, d, dtype=dtype, requires_grad=True)
    v = torch.randn(*lead, L, e, dtype=dtype, requires_grad=True)
    if bias is not None:
        bias = torch.randn(bias, dtype=dtype, requires_grad=True)
    return q, k, v, bias


def by_hand(q, k, v, bias, scale):
    """Equation 1 in numbers, one query after the other."""
    lead, N, L = q.shape[:-2], q.shape[-2], k.shape[-2]
    if bias is None:
        bias = q.new_zeros(())
    bias = bias.expand(*lead, N, L).reshape(-1, N, L).tolist()
    flat = [x.reshape(-1, *x.shape[-2:]).tolist() for x in (q, k, v)]
    out = []
    for queries, keys, values, offsets in zip(*flat, bias):
        for query, offset in zip(queries, offsets):
            weights = [
                math.exp(scale * sum(a * b for a, b in zip(query, key)) + o)
                for key, o in zip(keys, offset)
            ]
            total = sum(weights)
            out.append(
                [
                    sum(w * x for w, x in zip(weights, column)) / total
                    for column in zip(*values)
                ]
            )
    return torch.tensor(out, dtype=q.dtype).reshape(*lead, N, -1)


def plain(q, k, v, bias, scale):
    """The formula as one writes it down, in the dtype of its inputs."""
    return (q * scale @ k.mT + bias).softmax(dim=-1) @ v


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_equals_formula_by_hand(case, impl):
    q, k, v, bias = inputs(*case)
    for scale, factor in ((None, case[3] ** -0.5), (0.7, 0.7)):
        out = attention(q, k, v, bias, scale, impl)
        want = by_hand(q, k, v, bias, factor)
        torch.testing.assert_close(out, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_sdpa_has_the_gradients_of_the_reference(case):
    args = inputs(*case)
    learned = [x for x in args if x is not None]
    weights = torch.randn(*case[0], case[1], case[4], dtype=torch.float64)
    want, got = (
        torch.autograd.grad(
            (weights * attention(*args, impl=impl)).sum(), learned
        )
        for impl in IMPLS
    )
    for expected, found in zip(want, got):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('impl', IMPLS)
def test_gradcheck(impl):
    args = inputs((1, 2, 2), 2, 3, 1, 2, (2, 1, 2, 3))
    assert torch.autograd.gradcheck(
        lambda *x: attention(*x, scale=0.6, impl=impl), args
    )


@pytest.mark.parametrize('impl', IMPLS)
def test_half_precision_error_is_that_of_the_plain_formula(impl, half):
    q, k, v, bias = (
        x.detach().to(half)
        for x in inputs((2, 3), 49, 49, 32, 32, (3, 49, 49))
    )
    exact = plain(*(x.double() for x in (q, k, v, bias)), 32**-0.5)
    allowed = 2 * (plain(q, k, v, bias, 32**-0.5) - exact).abs().max()
    out = attention(q, k, v, bias, impl=impl)
    assert out.dtype == half
    assert (out - exact).abs().max() <= allowed


@pytest.mark.parametrize('impl', IMPLS)
def test_autocast_does_not_narrow(impl):
    args = inputs(*CASES['bias per window'], dtype=torch.float32)
    want = attention(*args, impl=impl)
    with torch.autocast('cpu', torch.bfloat16):
        out = attention(*args, impl=impl)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, want, rtol=0, atol=0)


@pytest.mark.parametrize('impl', IMPLS)
def test_minus_infinity_hides_a_key(impl, half):
    q, k, v, _ = inputs((2, 3), 4, 5, 8, 8, None, dtype=half)
    bias = torch.zeros(4, 5)
    bias[:, 2] = -torch.inf
    out = attention(q, k, v, bias, impl=impl)
    seen = [0, 1, 3, 4]
    want = attention(q, k[..., seen, :], v[..., seen, :], impl=impl)
    # Weights may be rounded before they are multiplied by the values.
    rounding = torch.finfo(half).eps * v.abs().max().item()
    torch.testing.assert_close(out, want, rtol=0, atol=rounding)
    for grad in torch.autograd.grad(out.sum(), (q, k, v)):
        assert grad.isfinite().all()
    _, key_grad, value_grad = torch.autograd.grad(
        attention(q, k, v, bias, impl=impl).sum(), (q, k, v)
    )
    assert not key_grad[..., 2, :].any() and not value_grad[..., 2, :].any()


@pytest.mark.parametrize('impl', IMPLS)
def test_strided_inputs(impl):
    q, k, v, bias = (x.detach() for x in inputs(*CASES['bias per window']))
    strided = [
        x.transpose(0, -1).contiguous().transpose(0, -1)
        for x in (q, k, v, bias)
    ]
    assert not any(x.is_contiguous() for x in strided)
    torch.testing.assert_close(
        attention(*strided, impl=impl),
        attention(q, k, v, bias, impl=impl),
        rtol=0,
        atol=1e-14,
    )


def test_mixed_dtypes():
    q, k, v, _ = inputs(*CASES['windows without bias'])
    out = attention(q.float(), k, v)
    assert out.dtype == torch.float64  # of v, by an implementation that can
    torch.testing.assert_close(out, attention(q, k, v), rtol=0, atol=1e-5)
    with pytest.raises(RuntimeError, match="'sdpa'.*one dtype"):
        attention(q.float(), k, v, impl='sdpa')


@pytest.mark.parametrize(
    'shapes',
    [
        ((4, 3), (5, 2), (5, 3)),
        ((4, 3), (5, 3), (6, 3)),
        ((2, 4, 3), (1, 5, 3), (2, 5, 3)),
        ((2, 4, 3), (5, 3), (5, 3)),
        ((3,), (3,), (3,)),
    ],
)
def test_shapes_that_do_not_fit(shapes):
    q, k, v = map(torch.zeros, shapes)
    with pytest.raises(ValueError) as error:
        attention(q, k, v)
    assert str(error.value) == (
        'attention expects q (*, N, d), k (*, L, d) and v (*, L, e), got '
        f'q {shapes[0]}, k {shapes[1]} and v {shapes[2]}'
    )
