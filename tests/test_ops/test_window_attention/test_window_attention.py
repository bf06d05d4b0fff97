import pytest
import torch

from mmattn.ops import window_attention

NARROW = ('reference', 'sdpa')  # take half precision too
IMPLS = (*NARROW, 'cpp')
# Map, window, shift.
CASES = [
    ((1, 1), 1, 0),
    ((7, 7), 7, 0),
    ((7, 7), 7, 3),
    ((14, 21), 7, 0),
    ((14, 21), 7, 3),
    ((21, 14), 7, 5),  # no half window
    ((6, 9), 3, 1),
    ((12, 4), 4, 3),  # one window is as wide as the map: not rolled
    ((3, 5), 1, 0),
    ((24, 24), 12, 5),  # more queries than are weighed at a time
]


def by_hand(qkv, heads, M, shift, bias, scale):
    """Attend place by place, with keys found by their coordinates."""
    B, H, W, _ = qkv.shape
    shift = shift if min(H, W) > M else 0
    places = [(y, x) for y in range(H) for x in range(W)]

    def where(y, x):
        """Window in the rolled map, region, and token in the window."""
        row, column = (y - shift) % H, (x - shift) % W
        return (
            (row // M, column // M, y < shift, x < shift),
            row % M * M + column % M,
        )

    together = {}
    for place in places:
        region, _ = where(*place)
        together.setdefault(region, []).append(place)
    d = qkv.shape[-1] // (3 * heads)
    out = qkv.new_empty(B, H, W, heads * d)
    for members in together.values():
        tokens = [where(*place)[1] for place in members]
        rows, columns = zip(*members)
        taken = qkv[:, rows, columns].unflatten(-1, (3, heads, d))
        for head in range(heads):
            q, k, v = taken[:, :, :, head].unbind(2)  # each (B, tokens, d)
            for b in range(B):
                for query, token, (y, x) in zip(q[b], tokens, members):
                    scores = scale * k[b] @ query
                    if bias is not None:
                        scores = scores + bias[head, token, tokens]
                    weights = scores.exp() / scores.exp().sum()
                    mixed = weights @ v[b]
                    out[b, y, x, head * d : (head + 1) * d] = mixed
    return out


def inputs(size, M, heads=2, d=3, B=2, dtype=torch.float64):
    qkv = torch.randn(B, *size, 3 * heads * d, dtype=dtype)
    bias = torch.randn(heads, M * M, M * M, dtype=dtype)
    return [x.requires_grad_() for x in (qkv, bias)]


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('size, M, shift', CASES)
def test_equals_attention_by_hand(size, M, shift, impl):
    qkv, bias = (x.detach() for x in inputs(size, M))
    out = window_attention(qkv, 2, M, shift, bias, impl=impl)
    want = by_hand(qkv, 2, M, shift, bias, 3**-0.5)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('impl', IMPLS)
def test_without_bias_and_with_a_scale(impl):
    qkv = inputs((6, 9), 3)[0].detach()
    for shift, scale in ((0, None), (2, 1.0)):
        torch.testing.assert_close(
            window_attention(qkv, 2, 3, shift, scale=scale, impl=impl),
            by_hand(qkv, 2, 3, shift, None, scale or 3**-0.5),
            rtol=0,
            atol=1e-12,
        )


def test_published_layer(golden_case):
    import golden

    case = golden_case('window_attention')
    state = {k: torch.from_numpy(w) for k, w in case['state'].items()}
    x = torch.from_numpy(case['inputs']['x']).view(8, 7, 7, 96)
    out = window_attention(x @ state['qkv.weight'].T, 3, 7)
    out = out @ state['proj.weight'].T + state['proj.bias']
    found = out.flatten(1, 2).numpy()
    assert golden.difference(case['captures']['out_tokens'], found) <= 1e-9


@pytest.mark.parametrize('shift', [0, 1])
@pytest.mark.parametrize('impl', IMPLS)
def test_gradcheck(shift, impl):
    args = inputs((2, 4), 2, d=1, B=1) if shift == 0 else inputs((4, 4), 2)
    assert torch.autograd.gradcheck(
        lambda qkv, bias: window_attention(qkv, 2, 2, shift, bias, impl=impl),
        args,
        fast_mode=shift == 1,
    )


@pytest.mark.parametrize('d', [4, 32])
def test_all_have_the_gradients_of_the_reference(d):
    qkv, bias = inputs((14, 21), 7, d=d)
    weights = torch.randn(2, 14, 21, 2 * d, dtype=torch.float64)
    want, *found = (
        torch.autograd.grad(
            (weights * window_attention(qkv, 2, 7, 3, bias, impl=impl)).sum(),
            (qkv, bias),
        )
        for impl in IMPLS
    )
    for got in found:
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('d', [4, 20, 32])  # published heads have 32 channels
def test_cpp_in_float32_agrees_with_the_reference(d):
    args = inputs((14, 21), 7, d=d, dtype=torch.float32)
    exact = [x.detach().double().requires_grad_() for x in args]
    upstream = torch.randn(2, 14, 21, 2 * d)

    def results(args, impl):
        out = window_attention(args[0], 2, 7, 3, args[1], impl=impl)
        grad = upstream.to(out.dtype)
        return out, *torch.autograd.grad(out, args, grad)

    for a, b in zip(results(args, 'cpp'), results(exact, 'reference')):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize('impl', NARROW)
def test_half_precision_error_is_that_of_the_plain_formula(impl, half):
    qkv, bias = inputs((14, 21), 7, d=16)
    qkv, bias = qkv.detach().to(half), bias.detach().to(half)

    def plain(qkv, bias):
        x = qkv.reshape(2, 2, 7, 3, 7, 3, 2, 16)
        x = x.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6)
        q, k, v = x  # (B, rows, columns, h, N, d)
        out = (q * 0.25 @ k.mT + bias).softmax(-1) @ v
        out = out.unflatten(4, (7, 7)).permute(0, 1, 4, 2, 5, 3, 6)
        return out.reshape(2, 14, 21, 32)

    exact = plain(qkv.double(), bias.double())
    out = window_attention(qkv, 2, 7, bias=bias, impl=impl)
    assert out.dtype == half
    allowed = 2 * (plain(qkv, bias) - exact).abs().max()
    assert (out - exact).abs().max() <= allowed


@pytest.mark.parametrize('impl', NARROW)
def test_autocast_keeps_the_dtype(impl, half):
    qkv, bias = inputs((14, 21), 7, dtype=torch.float32)
    want = window_attention(qkv, 2, 7, 3, bias, impl=impl)
    with torch.autocast('cpu', half):
        out = window_attention(qkv, 2, 7, 3, bias, impl=impl)
        low = window_attention(qkv.to(half), 2, 7, 3, bias, impl=impl)
    assert torch.equal(out, want)
    assert low.dtype == half and low.isfinite().all()
    for grad in torch.autograd.grad(low.float().sum(), (qkv, bias)):
        assert grad.isfinite().all()


@pytest.mark.parametrize('impl', IMPLS)
def test_no_image_depends_on_the_others(impl):
    qkv, bias = inputs((14, 21), 7, B=3)
    out = window_attention(qkv, 2, 7, 3, bias, impl=impl)
    for i in range(3):
        alone = window_attention(qkv[i : i + 1], 2, 7, 3, bias, impl=impl)
        torch.testing.assert_close(alone, out[i : i + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize('impl', IMPLS)
def test_empty_batch(impl):
    qkv, bias = inputs((14, 21), 7, B=0)
    out = window_attention(qkv, 2, 7, 3, bias, impl=impl)
    assert out.shape == (0, 14, 21, 6)
    grads = torch.autograd.grad(out.sum(), (qkv, bias))
    assert grads[0].shape == qkv.shape and not grads[1].any()


@pytest.mark.parametrize('impl', IMPLS)
def test_strided_map(impl):
    qkv, bias = inputs((14, 21), 7)
    strided = qkv.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    torch.testing.assert_close(
        window_attention(strided, 2, 7, 3, bias, impl=impl),
        window_attention(qkv, 2, 7, 3, bias, impl=impl),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.parametrize(
    'shape, heads', [((5, 5, 12), 2), ((1, 5, 5, 12), 3), ((1, 5, 5, 12), 0)]
)
def test_channels_that_do_not_fit(shape, heads):
    with pytest.raises(ValueError, match=f'num_heads={heads}'):
        window_attention(torch.zeros(shape), heads, 3)


@pytest.mark.parametrize('M, shift', [(3, 3), (3, -1), (0, 0)])
def test_shift_out_of_range(M, shift):
    with pytest.raises(ValueError, match=f'shift={shift}'):
        window_attention(torch.zeros(1, 6, 6, 12), 2, M, shift)


@pytest.mark.parametrize('size', [(6, 7), (8, 6), (2, 3)])
def test_map_that_the_window_does_not_divide(size):
    with pytest.raises(ValueError, match='pad_map') as error:
        window_attention(torch.zeros(1, *size, 12), 2, 3)
    assert f'{size[0]} x {size[1]}' in str(error.value)


@pytest.mark.parametrize('shape', [(1, 4, 4), (2, 9, 9), (2, 4)])
@pytest.mark.parametrize('impl', IMPLS)
def test_bias_that_does_not_fit(shape, impl):
    with pytest.raises(ValueError, match=r'a bias \(2, 4, 4\)'):
        window_attention(
            torch.zeros(1, 4, 4, 12), 2, 2, 0, torch.zeros(shape), impl=impl
        )


def test_cpp_go_back_under_autocast():
    x = torch.randn(1, 6, 9, 12, requires_grad=True)
    out = window_attention(x, 2, 3, 1, impl='cpp').square().sum()
    (want,) = torch.autograd.grad(out, x, retain_graph=True)
    with torch.autocast('cpu', torch.bfloat16):
        (grad,) = torch.autograd.grad(out, x)
    assert torch.equal(grad, want)


def test_cpp_hands_nan_on_whatever_its_bits():
    x = torch.randn(1, 4, 4, 12)
    x.view(torch.int32)[0, 0, 0, 4:8] = -1
    assert window_attention(x, 1, 4, impl='cpp').isnan().all()


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_window(bad):
    x = torch.randn(2, 6, 9, 12)
    x[0, 1, 1] = bad
    x.requires_grad_()
    out = window_attention(x, 2, 3, impl='cpp')
    clean = window_attention(x.detach().nan_to_num(0, 0), 2, 3)
    out.square().sum().backward()
    spoilt = torch.zeros(2, 6, 9, dtype=torch.bool)
    spoilt[0, :3, :3] = True
    assert out[spoilt].isnan().all() and x.grad[spoilt].isnan().any()
    torch.testing.assert_close(out[~spoilt], clean[~spoilt])
    assert x.grad[~spoilt].isfinite().all()
