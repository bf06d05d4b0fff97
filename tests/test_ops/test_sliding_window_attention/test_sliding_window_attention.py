import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from mmattn.ops import sliding_window_attention, window_attention

IMPLS = ('reference', 'sdpa', 'cpp')
# Map, window, stride.
CASES = [
    ((5, 7), 3, 1),
    ((7, 4), 3, 2),
    ((6, 6), 3, 3),
    ((5, 7), 4, 3),
    ((2, 6), 4, 2),  # lower than a window
    ((1, 1), 3, 1),
    ((13, 6), 5, 1),  # 25 rounds of windows that do not overlap
]


def begins(length, window, stride):
    """Where windows begin: each further one until the end is reached."""
    begin = 0
    yield begin
    while begin + window < length:
        begin += stride
        yield begin


def by_tokens(qkv, num_heads, window, stride, bias=None):
    """A loop over tokens, the windows that hold them, and their keys."""
    B, H, W, _ = qkv.shape
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).unbind(3)
    d = q.shape[-1]
    out = torch.zeros_like(v)
    for b in range(B):
        for y in range(H):
            for x in range(W):
                found = []
                for top in begins(H, window, stride):
                    for left in begins(W, window, stride):
                        if not 0 <= y - top < window:
                            continue
                        if not 0 <= x - left < window:
                            continue
                        keys = [
                            (r, c)
                            for r in range(top, min(top + window, H))
                            for c in range(left, min(left + window, W))
                        ]
                        query = (y - top) * window + x - left
                        heads = []
                        for h in range(num_heads):
                            scores = torch.stack(
                                [
                                    q[b, y, x, h] @ k[b, r, c, h] / d**0.5
                                    for r, c in keys
                                ]
                            )
                            if bias is not None:
                                scores = scores + torch.stack(
                                    [
                                        bias[
                                            h,
                                            query,
                                            (r - top) * window + c - left,
                                        ]
                                        for r, c in keys
                                    ]
                                )
                            weights = scores.softmax(0)
                            heads.append(
                                sum(
                                    weight * v[b, r, c, h]
                                    for weight, (r, c) in zip(weights, keys)
                                )
                            )
                        found.append(torch.stack(heads))
                assert found, 'a token in no window'
                out[b, y, x] = sum(found) / len(found)
    return out.flatten(3)


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('size, window, stride', CASES[:-1])
def test_equals_a_loop_over_tokens(size, window, stride, impl):
    qkv = draw(2, *size, 3 * 2 * 3)
    bias = draw(2, window**2, window**2)
    for b in (None, bias):
        out = sliding_window_attention(qkv, 2, window, stride, b, impl=impl)
        torch.testing.assert_close(
            out,
            by_tokens(qkv, 2, window, stride, b),
            rtol=1e-12,
            atol=1e-12,
        )


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    window=st.integers(1, 5),
    data=st.data(),
)
def test_equals_a_loop_over_tokens_at_any_size(height, width, window, data):
    stride = data.draw(st.integers(1, window))
    qkv = draw(1, height, width, 3 * 2)
    torch.testing.assert_close(
        sliding_window_attention(qkv, 1, window, stride),
        by_tokens(qkv, 1, window, stride),
        rtol=1e-12,
        atol=1e-12,
    )


def test_a_full_stride_gives_disjoint_windows():
    qkv, bias = draw(2, 12, 8, 24), draw(2, 16, 16)
    torch.testing.assert_close(
        sliding_window_attention(qkv, 2, 4, 4, bias),
        window_attention(qkv, 2, 4, bias=bias),
    )


@pytest.mark.parametrize('impl', IMPLS)
def test_gradient(impl):
    qkv, bias = draw(1, 4, 5, 6), draw(1, 9, 9)
    assert torch.autograd.gradcheck(
        lambda x, b: sliding_window_attention(x, 1, 3, 2, b, impl=impl),
        (qkv.requires_grad_(), bias.requires_grad_()),
    )


@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('heads, d, B', [(1, 3, 1), (3, 8, 2)])
@pytest.mark.parametrize('size, window, stride', CASES)
def test_all_have_the_gradients_of_the_reference(
    size, window, stride, heads, d, B, with_bias
):
    inputs = [draw(B, *size, 3 * heads * d)]
    if with_bias:
        inputs.append(draw(heads, window**2, window**2))
    weights = draw(B, *size, heads * d)

    def gradients(impl):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = sliding_window_attention(
            leaves[0], heads, window, stride, *leaves[1:], impl=impl
        )
        return torch.autograd.grad((weights * out).sum(), leaves)

    want = gradients('reference')
    for impl in IMPLS[1:]:
        torch.testing.assert_close(gradients(impl), want, rtol=0, atol=1e-12)


def test_cpp_keeps_the_map_alone(kept_bytes):
    qkv = torch.randn(2, 28, 28, 96, requires_grad=True)
    bias = torch.randn(2, 49, 49, requires_grad=True)
    kept = kept_bytes(
        lambda: sliding_window_attention(qkv, 2, 7, 4, bias, impl='cpp'),
        [qkv, bias],
    )
    assert kept < 0.02 * qkv.nbytes  # tables of places


def test_checkpointed_gradients_are_the_same():
    qkv = draw(2, 9, 14, 12).requires_grad_()

    def attend(x):
        return sliding_window_attention(x, 2, 7, 4, impl='cpp').square().sum()

    want = torch.autograd.grad(attend(qkv), qkv)
    again = checkpoint(attend, qkv, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again, qkv), want)


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_windows(bad):
    qkv = torch.randn(1, 14, 18, 6)
    qkv[0, 0, 0] = bad
    qkv.requires_grad_()
    out = sliding_window_attention(qkv, 1, 7, 4, impl='cpp')
    out.square().sum().backward()
    far = torch.ones(14, 18, dtype=torch.bool)
    far[:7, :7] = False
    assert out[0, :4, :4].isnan().all()
    assert out[0, far].isfinite().all()
    far[:11, :11] = False  # share a window with a token that is spoilt
    assert qkv.grad[0, far].isfinite().all()


@pytest.mark.parametrize('impl', IMPLS)
def test_no_image_depends_on_the_others(impl):
    qkv = draw(3, 9, 14, 12)
    out = sliding_window_attention(qkv, 2, 7, 4, impl=impl)
    for i in range(3):
        alone = sliding_window_attention(qkv[i : i + 1], 2, 7, 4, impl=impl)
        torch.testing.assert_close(alone[0], out[i], rtol=0, atol=1e-12)
    none = sliding_window_attention(qkv[:0], 2, 7, 4, impl=impl)
    assert none.shape == (0, 9, 14, 4)


def test_strided_map():
    strided = draw(2, 12, 9, 14).permute(0, 2, 3, 1)
    torch.testing.assert_close(
        sliding_window_attention(strided, 2, 7, 4, impl='cpp'),
        sliding_window_attention(strided, 2, 7, 4, impl='reference'),
        rtol=0,
        atol=1e-12,
    )


def test_half_precision(half):
    """Within twice the error of the plain formula in that precision."""
    qkv = torch.randn(1, 9, 11, 24).to(half)
    want = sliding_window_attention(qkv.double(), 2, 7, 1)
    got = sliding_window_attention(qkv, 2, 7, 1)
    assert got.dtype == half
    plain = sliding_window_attention(qkv, 2, 7, 1, impl='reference')
    error = (got.double() - want).abs().max()
    assert error <= 2 * (plain.double() - want).abs().max()


@pytest.mark.parametrize('shape', [(1, 9, 9), (2, 4, 4), (9, 9)])
def test_wrong_bias(shape):
    with pytest.raises(ValueError, match='bias'):
        sliding_window_attention(
            torch.randn(1, 4, 4, 12), 2, 3, 1, torch.zeros(shape)
        )


def test_wrong_channels():
    with pytest.raises(ValueError, match='num_heads=1'):
        sliding_window_attention(torch.randn(1, 4, 4, 10), 1, 3, 1)


@pytest.mark.parametrize('stride', [0, 4])
def test_wrong_stride(stride):
    with pytest.raises(
        ValueError, match=f'1 <= stride <= window_size, got stride={stride}'
    ):
        sliding_window_attention(torch.randn(1, 4, 4, 12), 1, 3, stride)
