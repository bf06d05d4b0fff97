import pytest
import torch

from mmattn.ops import window_attention

NARROW = ('reference', 'sdpa')  # take half precision too
IMPLS = (*NARROW, 'cpp')
# Map, window, shift.
CASES = [
    ((1, 1), 7, 0),
    ((7, 7), 7, 0),
    ((7, 7), 7, 3),
    ((9, 14), 7, 0),
    ((9, 14), 7, 3),  # 5 rows of padding, 2 more than the shift
    ((14, 9), 7, 5),  # no half window
    ((5, 8), 3, 1),
    ((10, 3), 4, 3),  # one window is as wide as the map: not rolled
    ((10, 5), 4, 3),
    ((3, 5), 1, 0),
    ((13, 9), 12, 5),  # more queries than are weighed at a time
]


def by_hand(qkv, heads, M, shift, bias, padding, scale):
    """Attend place by place, with keys found by their coordinates."""
    B, H, W, _ = qkv.shape
    shift = shift if min(H, W) > M else 0
    rows, columns = -(-H // M) * M, -(-W // M) * M
    if padding is None:
        padding = qkv.new_zeros(qkv.shape[-1])
    places = [(y, x) for y in range(rows) for x in range(columns)]

    def where(y, x):
        """Window in the rolled map, region, and token in the window."""
        row, column = (y - shift) % rows, (x - shift) % columns
        return (
            (row // M, column // M, y < shift, x < shift),
            row % M * M + column % M,
        )

    together = {}
    for place in places:
        region, _ = where(*place)
        together.setdefault(region, []).append(place)
    C = qkv.shape[-1] // 3
    d = C // heads
    out = qkv.new_empty(B, H, W, C)
    for b in range(B):
        field = {
            (y, x): qkv[b, y, x] if y < H and x < W else padding
            for y, x in places
        }
        for members in together.values():
            for head in range(heads):
                q, k, v = (
                    torch.stack(
                        [
                            field[place][
                                i * C + head * d : i * C + (head + 1) * d
                            ]
                            for place in members
                        ]
                    )
                    for i in range(3)
                )
                tokens = [where(*place)[1] for place in members]
                for query, token, (y, x) in zip(q, tokens, members):
                    if y >= H or x >= W:
                        continue
                    scores = scale * k @ query
                    if bias is not None:
                        scores = scores + bias[head, token, tokens]
                    weights = scores.exp() / scores.exp().sum()
                    out[b, y, x, head * d : (head + 1) * d] = weights @ v
    return out


def inputs(size, M, heads=2, d=3, B=2, dtype=torch.float64):
    qkv = torch.randn(B, *size, 3 * heads * d, dtype=dtype)
    bias = torch.randn(heads, M * M, M * M, dtype=dtype)
    padding = torch.randn(3 * heads * d, dtype=dtype)
    return [x.requires_grad_() for x in (qkv, bias, padding)]


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('size, M, shift', CASES)
def test_equals_attention_by_hand(size, M, shift, impl):
    qkv, bias, padding = (x.detach() for x in inputs(size, M))
    out = window_attention(qkv, 2, M, shift, bias, padding, impl=impl)
    want = by_hand(qkv, 2, M, shift, bias, padding, 3**-0.5)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-12)


def test_defaults_and_scale():
    qkv = inputs((5, 8), 3)[0].detach()
    torch.testing.assert_close(
        window_attention(qkv, 2, 3),
        by_hand(qkv, 2, 3, 0, None, None, 3**-0.5),
        rtol=0,
        atol=1e-12,
    )
    torch.testing.assert_close(
        window_attention(qkv, 2, 3, shift=2, scale=1.0),
        by_hand(qkv, 2, 3, 2, None, None, 1.0),
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
    args = inputs((3, 4), 2, d=1, B=1)
    assert torch.autograd.gradcheck(
        lambda qkv, bias, padding: window_attention(
            qkv, 2, 2, shift, bias, padding, impl=impl
        ),
        args,
    )


@pytest.mark.parametrize('d', [4, 32])
def test_all_have_the_gradients_of_the_reference(d):
    args = inputs((9, 14), 7, d=d)
    weights = torch.randn(2, 9, 14, 2 * d, dtype=torch.float64)
    want, *found = (
        torch.autograd.grad(
            (
                weights
                * window_attention(args[0], 2, 7, 3, *args[1:], None, impl)
            ).sum(),
            args,
        )
        for impl in IMPLS
    )
    for got in found:
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('d', [4, 20, 32])  # published heads have 32 channels
def test_cpp_in_float32_agrees_with_the_definition(d):
    args = inputs((9, 14), 7, d=d, dtype=torch.float32)
    exact = [x.detach().double().requires_grad_() for x in args]
    upstream = torch.randn(2, 9, 14, 2 * d)

    def results(args, impl):
        out = window_attention(args[0], 2, 7, 3, *args[1:], None, impl)
        grad = upstream.to(out.dtype)
        return out, *torch.autograd.grad(out, args, grad)

    for a, b in zip(results(args, 'cpp'), results(exact, 'reference')):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize('impl', NARROW)
def test_half_precision_error_is_that_of_the_plain_formula(impl, half):
    qkv, bias, _ = inputs((14, 21), 7, d=16)
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
    qkv, bias, padding = inputs((9, 14), 7, dtype=torch.float32)
    want = window_attention(qkv, 2, 7, 3, bias, padding, impl=impl)
    with torch.autocast('cpu', half):
        out = window_attention(qkv, 2, 7, 3, bias, padding, impl=impl)
        low = window_attention(qkv.to(half), 2, 7, 3, bias, padding, impl=impl)
    assert torch.equal(out, want)
    assert low.dtype == half and low.isfinite().all()
    for grad in torch.autograd.grad(low.float().sum(), (qkv, bias, padding)):
        assert grad.isfinite().all()


@pytest.mark.parametrize('impl', IMPLS)
def test_no_image_depends_on_the_others(impl):
    qkv, bias, padding = inputs((9, 14), 7, B=3)
    out = window_attention(qkv, 2, 7, 3, bias, padding, impl=impl)
    for i in range(3):
        alone = window_attention(
            qkv[i : i + 1], 2, 7, 3, bias, padding, impl=impl
        )
        torch.testing.assert_close(alone, out[i : i + 1], rtol=0, atol=1e-12)
    assert window_attention(
        qkv[:0], 2, 7, 3, bias, padding, impl=impl
    ).shape == (0, 9, 14, 6)


@pytest.mark.parametrize('impl', IMPLS)
def test_strided_map(impl):
    qkv, bias, padding = inputs((9, 14), 7)
    strided = qkv.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    torch.testing.assert_close(
        window_attention(strided, 2, 7, 3, bias, padding, impl=impl),
        window_attention(qkv, 2, 7, 3, bias, padding, impl=impl),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.usefixtures('compiler')
def test_compiled_equals_eager():
    qkv, bias, padding = inputs((5, 8), 3)

    def attend(qkv, bias, padding):
        return window_attention(qkv, 2, 3, 1, bias, padding)

    compiled = torch.compile(attend, fullgraph=True, backend='aot_eager')
    args = (qkv, bias, padding)
    out, want = compiled(*args), attend(*args)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-12)
    got = torch.autograd.grad(out.square().sum(), args)
    expected = torch.autograd.grad(want.square().sum(), args)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    'shape, heads', [((5, 5, 12), 2), ((1, 5, 5, 12), 3), ((1, 5, 5, 12), 0)]
)
def test_channels_that_do_not_fit(shape, heads):
    with pytest.raises(ValueError) as error:
        window_attention(torch.zeros(shape), heads, 3)
    assert str(error.value) == (
        'window_attention expects qkv (B, H, W, 3 * heads * d), got '
        f'{shape} with num_heads={heads}'
    )


@pytest.mark.parametrize('M, shift', [(3, 3), (3, -1), (0, 0)])
def test_shift_out_of_range(M, shift):
    with pytest.raises(ValueError) as error:
        window_attention(torch.zeros(1, 5, 5, 12), 2, M, shift)
    assert str(error.value) == (
        'window_attention expects 0 <= shift < window_size, got '
        f'shift={shift}, window_size={M}'
    )


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_tracers_and_transforms_follow_the_definition():
    maps = torch.randn(2, 2, 5, 8, 12)

    def call(x, impl='auto'):
        return window_attention(x, 2, 3, 1, impl=impl)

    want = torch.stack([call(x, 'reference') for x in maps])
    torch.testing.assert_close(torch.vmap(call)(maps), want)
    grad = torch.func.grad(lambda x: call(x).square().sum())(maps[0])
    assert grad.shape == maps[0].shape
    traced = torch.jit.trace(call, (maps[0],), check_trace=False)
    torch.testing.assert_close(traced(maps[1]), want[1])
    with pytest.raises(RuntimeError, match='tracers and transforms follow'):
        torch.vmap(lambda x: call(x, 'cpp'))(maps)


def test_cpp_tell_that_gradients_have_none():
    x = torch.randn(1, 5, 8, 12, requires_grad=True)
    out = window_attention(x, 2, 3, 1, impl='cpp').square().sum()
    with pytest.raises(RuntimeError, match='without create_graph, got'):
        torch.autograd.grad(out, x, create_graph=True)


def test_cpp_go_back_under_autocast():
    x = torch.randn(1, 5, 8, 12, requires_grad=True)
    out = window_attention(x, 2, 3, 1, impl='cpp').square().sum()
    (want,) = torch.autograd.grad(out, x, retain_graph=True)
    with torch.autocast('cpu', torch.bfloat16):
        (grad,) = torch.autograd.grad(out, x)
    assert torch.equal(grad, want)


@pytest.mark.parametrize(
    'bias, padding',
    [((1, 4, 4), None), ((2, 9, 9), None), (None, (1,)), (None, (4,))],
)
@pytest.mark.parametrize('impl', IMPLS)
def test_bias_and_padding_that_do_not_fit(bias, padding, impl):
    bias, padding = (
        None if shape is None else torch.zeros(shape)
        for shape in (bias, padding)
    )
    with pytest.raises(ValueError, match=r'a bias \(2, 4, 4\) and a padding'):
        window_attention(
            torch.zeros(1, 4, 4, 12), 2, 2, 0, bias, padding, impl=impl
        )


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


def test_cpp_tells_that_it_takes_one_gradient_at_a_time():
    x = torch.randn(1, 4, 4, 12, requires_grad=True)
    out = window_attention(x, 2, 2, impl='cpp')
    grads = torch.randn(3, *out.shape)
    with pytest.raises(RuntimeError, match='a batch of gradients'):
        torch.autograd.grad(out, x, grads, is_grads_batched=True)
